"""What the controller does: one module for each kind of thing acted on, and the queue and operations that run it all.

Nothing here decides whether to act; each call carries out what `controller.decide` has decided, checking what the API
server and the agent say meanwhile. These modules get `kube.leading.LeadersApi`: its writes fail unless this replica
leads. Writes to agents carry a stamp of the leader's term, and agents refuse an old one.
"""
