"""The dashboards for Grafana. `make manifests` writes them to manifests/monitoring/dashboards."""
