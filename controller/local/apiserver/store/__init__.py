"""The objects: kinds, versions, and what creating, changing and deleting them does. Pure."""
