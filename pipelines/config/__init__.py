"""params.yaml as frozen classes: a module a stage."""
