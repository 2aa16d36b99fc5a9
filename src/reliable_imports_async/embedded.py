"""The embedded PostgreSQL server, for tests and scripts of users."""

from .database.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]
