"""What is applied to a cluster, and `python -m manifests`, which writes those parts that are made of something else."""
