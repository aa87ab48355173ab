"""Where raw images come from: a module a kind of source. Called by `fetch` alone."""
