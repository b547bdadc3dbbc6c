"""The worker: runs the commands of one slot. Standard library only, so that it starts fast and stays small."""
