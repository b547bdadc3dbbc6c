"""The agent: the process in each Pod that owns the Pod's slots, and the workers that run in them.

`wire` is what others may import. `worker` uses the standard library alone. Nothing here knows Kubernetes.
"""

__version__ = "0.1.0"
