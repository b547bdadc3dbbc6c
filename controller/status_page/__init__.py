"""What people and scrapers read of a replica over HTTP: the page at `/`, its API, metrics and health. Read-only.

`model` makes the values, pure. `live` keeps the newest ones while somebody looks, `access` says who may look, `server`
answers, `assets` is what a browser gets.
"""
