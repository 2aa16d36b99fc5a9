"""The REST API: one route table for every registered processor, mounted in any ASGI server."""
