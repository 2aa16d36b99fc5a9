"""Advice on failures that PostgreSQL, asyncpg and pydantic only name; it is read in every place."""

import re
from collections.abc import Sequence
from typing import Any

# By what the message says, behind its SQLSTATE.
_MESSAGES = (
    (r'syntax error at or near "%"', "placeholders are $1, $2, …, not %s."),
    (
        r"invalid input for query argument \$\d+: .*(?:str|expected a date|toordinal|isoformat)",
        "the column is not text: the processor has to convert the value, or declare a model and "
        "use the model's value.",
    ),
    (
        r"^23503 insert or update",
        "the row that the record refers to is not there: import it first; if it is in the same "
        "file, reprocess this batch once it has ended.",
    ),
    (
        r"^(40001|40P01) ",
        "other transactions wanted the same rows again and again: reprocess it, with fewer items "
        "at once if that goes on.",
    ),
    (
        r"^55P03 ",
        "another session holds a lock: reprocess it when that session has ended (pg_stat_activity "
        "and pg_locks show it), or raise lock_timeout.",
    ),
    (
        r"^57014 .*statement timeout",
        "make the statement faster, or raise statement_timeout where it is set (database, role or "
        "processor).",
    ),
    (
        r"took longer than item_timeout",
        "look for what the item waited for (a lock, another system, a slow statement), or raise "
        "the processor's item_timeout.",
    ),
    (
        r"current transaction is aborted",
        "the processor caught an earlier SQL error and went on: it has to run that statement "
        "inside a savepoint (`ctx.savepoint`).",
    ),
    (
        r"another operation is in progress",
        "the processor has to wait for each statement before the next, and must not start tasks.",
    ),
    (
        r"42501 .*\b(?:reliable_imports|settle_item|import_[a-z_]+)\b",
        "another role was in force when the item's outcome was stored: RESET ROLE at the end of "
        "process_item, or grant that role what the library's own role may do in reliable_imports.",
    ),
)

# By the beginning of pydantic's name for an error.
_FIELDS = (
    (
        r"date",
        "dates must be in ISO 8601 form: 2025-04-03, with a time 2025-04-03T14:30:00+02:00. "
        "Correct the records, or add a validator for other forms to the processor's model.",
    ),
    (
        r"time_delta",
        "durations must be in ISO 8601 form, such as PT1H30M, or like 01:30:00. Correct the "
        "records, or add a validator for other forms to the processor's model.",
    ),
    (
        r"time_",
        "times must be in ISO 8601 form, such as 14:30:00. Correct the records, or add a validator "
        "for other forms to the processor's model.",
    ),
    (
        r"timezone",
        "whether a time has a time zone differs from what the processor's model asks for: write "
        "2025-04-03T14:30:00+02:00 with one, 2025-04-03T14:30:00 without.",
    ),
    (
        r"(int|float|decimal)_(parsing$|type)",
        "numbers must be like 1234.56: a point before the decimals, no thousands separators, "
        "units, currency signs or invisible characters. Correct the records, or add a validator "
        "for other forms to the processor's model.",
    ),
    (
        r"int_from_float",
        "the number has decimals, and the field takes whole numbers: correct the records, or make "
        "it Decimal in the processor's model.",
    ),
    (
        r"finite",
        "NaN and infinity are not numbers here: correct the records, or make the field a float, or "
        "a Decimal that allows them, in the processor's model.",
    ),
    (
        r"bool",
        "yes or no must be one of true, false, yes, no, on, off, t, f, y, n, 1 and 0. Correct the "
        "records, or add a validator for other words to the processor's model.",
    ),
    (
        r"uuid",
        "UUIDs must be like 3fa85f64-5717-4562-b3fc-2c963f66afa6: correct the records, or make the "
        "field text in the processor's model.",
    ),
    (
        r"string_type",
        "the field is text, and the record holds another type: put the value in quotes, or let "
        "the processor's model convert it (coerce_numbers_to_str for numbers).",
    ),
    (
        r"(list|dict|set|tuple|model|dataclass)_.*type",
        "the field is a list or has fields of its own, which a CSV file cannot hold as such: use "
        "JSON, or add a validator that reads the text to the processor's model.",
    ),
)
_MISSING = (
    "the record has no value there: fill it in, or let the processor's model do without (a "
    "default, or a type that allows None)."
)
_EMPTY = (
    "the value is an empty text: fill it in, or let the field allow None and list the empty text "
    "in the processor's null_values."
)


def for_message(text: str) -> str | None:
    """What helps against an error, by its SQLSTATE and message."""
    return next((hint for pattern, hint in _MESSAGES if re.search(pattern, text, re.DOTALL)), None)


def for_fields(fields: Sequence[dict[str, Any]]) -> str | None:
    """What helps against the first of a record's field errors that has an answer."""
    return next(filter(None, map(_for_field, fields)), None)


def _for_field(one: dict[str, Any]) -> str | None:
    """A rule of the user's own model, such as string_too_short, explains itself."""
    found = next((hint for name, hint in _FIELDS if re.match(name, one["type"])), None)
    if one["type"] == "missing" or (found and one["input"] == "None"):
        return _MISSING
    return _EMPTY if found and one["input"] == "''" else found
