"""Helpers for users' own tests: one item through a processor, inside the caller's transaction."""

from .items import make_item, run_item

__all__ = ["make_item", "run_item"]
