"""On-phone-style demos, served from bundles."""
