"""The connection to the agent: HTTP/1.1 that never waits, over TLS where the agent speaks it."""
