"""The embedded cluster: an API server and a kubelet on one machine. Imports neither the controller nor the agent."""
