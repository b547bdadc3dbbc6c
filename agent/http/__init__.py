"""The agent over HTTP: the table of its calls, their handlers, and what is made from the table.

No decision about slots is made here: requests become commands for `agent.service`.
"""
