"""A kubelet and a scheduler for one machine. They know the API server over HTTP only, as real ones do."""
