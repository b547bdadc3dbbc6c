"""What the controller does: one module for each kind of thing acted on, and the queue and operations that run it all.

Nothing here decides whether to act; each call carries out what `controller.decide` has decided, checking what the API
server and the agent say meanwhile. What acts is given `kube.leading.LeadersApi`, whose writes fail unless this replica
leads; writes to agents carry a stamp of the leader's term, which fails likewise.
"""
