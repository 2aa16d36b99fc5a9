"""Live progress: one poller per process, and server-sent events for all its clients.

Owns the feed and the streams. It may import `manager` and the rooms below. It knows no route and no
page.
"""
