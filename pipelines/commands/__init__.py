"""One module a command: its arguments (`add_arguments`) and its work (`main`)."""
