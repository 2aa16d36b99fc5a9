"""The REST API: its route table, its handlers, and the OpenAPI document made from both.

Owns what clients of the API see. It may import `web.http`, `web.events` and the rooms below.
Pages belong in `web.dashboard`.
"""
