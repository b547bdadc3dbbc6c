"""One Pod on this node: its plan, its volumes, its containers as processes, and the status that tells of them."""
