"""What decides in the agent: states, events and the tables between them. Pure, without I/O, clock or randomness.

Whatever reads a file, answers a request or keeps time belongs elsewhere.
"""
