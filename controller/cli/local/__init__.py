"""The cluster and the controller that `podslots local` and the demo start on this machine, as processes."""
