"""The dashboard: server-rendered pages over the manager.

Owns everything that people see in a browser. It may import `web.http`, `web.events` and the rooms
below. It never speaks JSON to clients: that is `web.api`.
"""
