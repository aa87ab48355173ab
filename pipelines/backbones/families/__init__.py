"""One file a family of networks; a top-level ``name = BackboneSpec(...)`` is an entry."""
