"""What is applied to a cluster, and `python -m manifests.generate`, which writes those parts that say a thing twice."""
