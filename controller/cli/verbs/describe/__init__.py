"""`podslots describe`: `command` chooses what to tell, `pool`, `pod` and `task` tell it, of `parts`."""
