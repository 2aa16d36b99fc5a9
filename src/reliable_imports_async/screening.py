"""What PostgreSQL said about bad items: later ones that carry the same key run last and alone.

They run all the same, so their verdict is what it would have been; only the cost changes.
"""

import re
from collections.abc import Mapping
from typing import Any

from .models import ImportBatchItem
from .outcomes import Failure

REMEMBERED = 10_000

_KEY = re.compile(r"[^(]*+\((?P<columns>[^()]++)\)=\((?P<values>.*?)\)(?: |\Z)", re.DOTALL)

Columns = tuple[str, ...]
Values = tuple[str, ...]


class Screening:
    """The keys that PostgreSQL has named in this batch, by their columns."""

    def __init__(self) -> None:
        self._known: dict[Columns, dict[Values, None]] = {}

    def learn(self, failure: Failure) -> bool:
        """Remember the key a failure names, such as ``Key (dest)=(SJU)``; whether it is new."""
        found = _KEY.match(failure.detail or "") if failure.sqlstate else None
        if found is None:
            return False
        columns = tuple(found["columns"].split(", "))
        values = tuple(found["values"].split(", ")) if len(columns) > 1 else (found["values"],)
        known = self._known.setdefault(columns, {})
        if len(columns) != len(values) or values in known:
            return False
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[values] = None
        return True

    def suspects(self, item: ImportBatchItem[Any]) -> bool:
        """Whether an item carries a key that was named."""
        for columns, known in self._known.items():
            if _values(item.source_data, columns) in known:
                return True
            if item.data is not item.source_data and _values(item.data, columns) in known:
                return True
        return False

    def acquit(self, item: ImportBatchItem[Any]) -> None:
        """An item with such a key has succeeded: its cause is gone, for the others as well."""
        for columns, known in self._known.items():
            for source in (item.source_data, item.data):
                known.pop(_values(source, columns), None)


def _values(source: Any, columns: Columns) -> Values:
    """A record's values for some columns, as PostgreSQL would show most of them."""
    if type(source) is dict or isinstance(source, Mapping):  # the second takes long
        if len(columns) == 1:
            return (str(source.get(columns[0])),)
        return tuple([str(source.get(column)) for column in columns])
    return tuple([str(getattr(source, column, None)) for column in columns])
