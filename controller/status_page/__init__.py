"""What people and scrapers read of a replica over HTTP: the page at `/`, its API, metrics and health. Read-only.

`model` makes the values, pure. `live` keeps the newest ones while there are readers, `access` decides who may read,
`server` answers, `assets` are the files for browsers.
"""
