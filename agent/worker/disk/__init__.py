"""The files of a slot: what is kept of each task, those that a task names, and how forgotten ones go away."""
