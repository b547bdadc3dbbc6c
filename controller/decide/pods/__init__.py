"""What to do about Pods: new ones, drains, rollouts, Deployments, and answers to Evictions."""
