"""What a worker does on each answer, event and moment, and the interfaces that it needs for it. Pure."""
