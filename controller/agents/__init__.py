"""How the controller speaks with agents: one client and one followed stream for each.

What the answers mean for Pods and tasks is decided elsewhere.
"""
