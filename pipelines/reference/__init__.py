"""cats_dogs: a well-known task that shows whether the pipeline works at all.

A module ``<task>.py`` here gives ``records(raw_dir, card)`` where a card cannot say how a raw
folder is read. Its card says everything today: the classes' names at the publisher, and by
``group_pattern`` what must not straddle splits. So there is none.
"""
