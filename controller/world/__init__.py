"""What the controller knows: caches, agents' reports and operations under way, made into views for decisions.

Nothing here decides or writes.
"""
