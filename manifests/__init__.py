"""What is applied to a cluster, and `python -m manifests`, which writes the generated parts of it."""
