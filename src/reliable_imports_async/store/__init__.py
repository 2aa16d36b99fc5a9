"""One function a statement: connection in, model out. Nothing here decides anything."""
