"""Records as pages show them: fields in the order of the file, with errors at their fields."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import exact_json
from ...models import ImportBatchItem, ItemPreview
from ...outcomes import Failure
from .filters import value_text

PAIRS, CELLS = 8, 12
_KEY = re.compile(r"\(([^()]{1,500})\)=\(")  # PostgreSQL's detail: Key (a, b)=(1, 2) …
_DISCRIMINATOR = re.compile(r"(?:found using|discriminator) '([^']{1,200})'")  # pydantic's words


@dataclass(frozen=True, slots=True)
class Pair:
    """A field of a record in a list, and whether it has an error."""

    name: str
    value: str
    wrong: bool


def in_order(record: Any, columns: tuple[str, ...] | None) -> Any:
    """A record with its fields in the order of the file, which jsonb does not keep."""
    if not isinstance(record, dict) or not columns:
        return record
    known = {name: record[name] for name in columns if name in record}
    return known | record


def wrong_fields(failure: Failure | None, record: Any) -> dict[str, list[str]]:
    """The errors of a failure, by field.

    Validation errors name their fields. PostgreSQL names a column or a key.
    """
    if failure is None:
        return {}
    wrong = _by_field(failure.fields, record)
    text = [failure.detail or failure.message]
    for name in _named(failure.column, failure.detail):
        if isinstance(record, dict) and name in record:
            wrong.setdefault(name, []).extend(text)
            text = []  # only once for all columns of a key
    return wrong


def _by_field(errors: Iterable[Mapping[str, Any]], record: Any) -> dict[str, list[str]]:
    names: Collection[str] = record if isinstance(record, dict) else ()
    wrong: dict[str, list[str]] = {}
    for error in errors:
        place, text = str(error.get("loc", "")), str(error.get("msg", ""))
        if not place and (tagged := _DISCRIMINATOR.search(text)):
            place = tagged[1]
        name = _field_at(place, names)
        if name is None and "." in place:  # the tag of a union, or the name of its member
            place = place.partition(".")[2]
            name = _field_at(place, names)
        name = place.partition(".")[0] if name is None else name
        deeper = place[len(name) + 1 :]
        wrong.setdefault(name, []).append(f"{deeper}: {text}" if deeper else text)
    return wrong


def _field_at(place: str, names: Collection[str]) -> str | None:
    """The field that contains a place; of several, the field with the longest name."""
    ends = [len(place), *(n for n in range(len(place) - 1, -1, -1) if place[n] == ".")]
    return next((place[:end] for end in ends if place[:end] in names), None)


def _named(column: str | None, detail: str | None) -> list[str]:
    """The columns that PostgreSQL names."""
    key = _KEY.search((detail or "")[:2000])
    names = [name.strip().strip('"') for name in key[1].split(",")] if key else []
    return [*dict.fromkeys(([column] if column else []) + names)]


def pairs(item: ItemPreview, columns: tuple[str, ...] | None) -> tuple[list[Pair], int] | None:
    """The first fields of a record, those with errors first, and the number of further fields.

    None if the record has no fields, or if its text was cut.
    """
    record = _parsed(item.record)
    if not isinstance(record, dict) or not record:
        return None
    errors = _parsed(item.error_fields) or []
    wrong = {*_by_field(errors, record), *_named(item.error_column, item.error_detail)}
    names = sorted(in_order(record, columns), key=lambda name: name not in wrong)
    shown = [Pair(name, value_text(record[name]), name in wrong) for name in names[:PAIRS]]
    return shown, max(0, len(names) - PAIRS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Records as a table: the columns, and the cells of each item; a missing field is None."""

    columns: tuple[str, ...]
    more_columns: int
    rows: tuple[tuple[ItemPreview, tuple[str | None, ...] | None], ...]


def as_rows(items: Sequence[ItemPreview], columns: tuple[str, ...] | None) -> Rows | None:
    """The first items of a file as a table; None if there are no columns."""
    records = [_parsed(item.record) for item in items]
    seen = columns or tuple(
        dict.fromkeys(name for record in records if isinstance(record, dict) for name in record)
    )
    if not seen:
        return None
    shown = seen[:CELLS]
    return Rows(
        shown,
        len(seen) - len(shown),
        tuple(
            (item, _cells(record, shown) if isinstance(record, dict) else None)
            for item, record in zip(items, records, strict=True)
        ),
    )


def _cells(record: dict[str, Any], names: tuple[str, ...]) -> tuple[str | None, ...]:
    return tuple(value_text(record[name]) if name in record else None for name in names)


def _parsed(text: str | None) -> Any:
    """The value of a JSON text; None if it is missing or was cut."""
    try:
        return None if text is None else exact_json.read_unchecked(text)
    except ValueError:
        return None


def wrong_in(item: ImportBatchItem[Any]) -> dict[str, list[str]]:
    """The errors of an item, by field."""
    return wrong_fields(item.failure, item.source_data)
