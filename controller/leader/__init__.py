"""Which replica acts: the Lease, what to do about it, and the loop that does it."""
