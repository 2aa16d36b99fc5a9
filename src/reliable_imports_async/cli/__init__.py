"""The command `reliable-imports`: the verbs of BatchManager from a terminal."""

from .app import main

__all__ = ["main"]
