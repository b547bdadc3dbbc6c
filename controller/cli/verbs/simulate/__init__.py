"""`podslots simulate`: demand against the controller's own decisions in virtual time, beside other ways to size a pool.

`trace`, `day` and `prometheus` make the demand; `engine` moves `jobs`, Pods and the clock; `podslots`, `workers`, `hpa`
and `pod_per_task` decide; `figures` counts; `comparison` runs them all, and `plot` draws. Nothing asks a cluster.
"""
