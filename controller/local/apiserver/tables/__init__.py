"""Server-side tables: the columns that `kubectl get` prints, computed here as a real API server does."""
