"""OpenAPI v3: what kubectl reads before it applies, creates, edits or explains.

`common.json` holds what every document shares: Kubernetes' own schemas of metadata, and the parameters of its verbs.
"""
