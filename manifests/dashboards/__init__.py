"""The dashboards for Grafana: written by `python -m manifests.dashboards` to manifests/monitoring/dashboards."""
