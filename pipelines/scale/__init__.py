"""More pictures than one loop should take: scoring by parts, in processes or on a cluster."""
