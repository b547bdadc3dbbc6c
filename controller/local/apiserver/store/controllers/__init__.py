"""What the controllers of a cluster do by themselves: garbage, namespaces, Pods without a node, budgets."""
