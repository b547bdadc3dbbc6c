"""Asks the Prometheus servers that pools scale by. What an answer means is for `decide.signal` to say."""
