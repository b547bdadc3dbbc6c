"""The agent's decisions: states, events and the tables between them. Pure: no I/O, clock or randomness.

Code that reads a file, answers a request or keeps time belongs elsewhere.
"""
