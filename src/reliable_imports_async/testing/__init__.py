"""Helpers for users' own tests: one item through a processor, inside the caller's transaction.

Owns `run_item`, `make_item` and the pytest plugin. It may import every room but `cli`. The library
itself never imports it.
"""

from .items import make_item, run_item

__all__ = ["make_item", "run_item"]
