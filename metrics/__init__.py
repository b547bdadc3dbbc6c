"""Metric families and queries, shared by agent and controller and knowing neither."""
