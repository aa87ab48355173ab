"""Clinical images: chest_xray and skin_lesion.

A module ``<task>.py`` here gives ``records(raw_dir, card)`` where a card cannot say how a raw
folder is read. Their cards say everything today: the classes' names at the publisher, and by
``group_pattern`` what must not straddle splits. So there is none.
"""
