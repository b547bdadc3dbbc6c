"""`make demo`: a pool from zero to five Pods and back, in about a minute, on an embedded cluster.

Nothing is decided here that the controller decides: the demo is a user. It submits tasks, approves plans as a person
would, and watches. Its verdict rests on what agents said, what tasks wrote down themselves, and the API server's
audit log; never on the controller's word.
"""
