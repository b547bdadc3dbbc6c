"""The loop over pools, and one pass over one of them: read the world, decide, start operations. A pass never waits."""
