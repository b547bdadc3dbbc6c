"""The Kubernetes API over raw JSON."""
