"""One module for each thing that clients do; each handler is `async def name(call)`."""
