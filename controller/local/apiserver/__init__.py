"""A small API server that speaks the Kubernetes API over HTTP for the kinds used here.

What runs Pods is `controller.local.node`: the two know each other over HTTP only.
"""
