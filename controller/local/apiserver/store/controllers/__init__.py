"""What the controllers of a cluster do by themselves: garbage, namespaces, lost Pods, budgets, Deployments."""
