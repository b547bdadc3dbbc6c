"""How many Pods a pool should have, of which slots there are, what the load asks for and how fast sizes may change."""
