"""The controller: reads agents and the Kubernetes API, decides in pure functions, and acts on Pods and tasks."""
