"""The dashboard: server-rendered pages over the same manager, served by the API.

It knows nothing of the API but the `Call` it is handed; the API asks who is there, checks the forms
and makes routes of `PAGES`.
"""

from .rendering import error_page
from .table import PAGES
from .visits import Page, Refused, Visit

__all__ = ["PAGES", "Page", "Refused", "Visit", "error_page"]
