"""What the agent keeps on disk: the journal, the output of steps, and the thread that writes both.

What the records mean is said in `agent.rules`.
"""
