"""`podslots logs`: `command` shows what there is of an output, `following` goes on as it grows."""
