"""The Kubernetes API over raw JSON. The only importers of kubernetes_asyncio."""
