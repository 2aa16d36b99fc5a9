"""The handlers of the API, one `async def name(call)` for each operation."""
