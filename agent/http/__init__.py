"""The agent over HTTP: routes, who may call them, bodies and answers, and the document that describes them.

No decision about slots is made here: requests become commands for `agent.service`.
"""
