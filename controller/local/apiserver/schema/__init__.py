"""Schemas of custom resources, and the values and CEL rules that are held against them. Pure."""
