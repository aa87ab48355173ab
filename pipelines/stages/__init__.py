"""One file a DVC verb: reads files, calls pure functions, writes files."""
