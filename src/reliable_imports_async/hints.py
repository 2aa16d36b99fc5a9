"""Hints for failures that PostgreSQL, asyncpg and pydantic report; they fit every surface."""

import re
from collections.abc import Sequence
from typing import Any

# By the SQLSTATE and the message, in this order.
_MESSAGES = (
    (r'syntax error at or near "%"', "placeholders are $1, $2, …, not %s."),
    (
        r"invalid input for query argument \$\d+: .*(?:str|expected a date|toordinal|isoformat)",
        "the column is not text: the processor has to convert the value, or declare a model and "
        "use the model's value.",
    ),
    (
        r"^23503 insert or update",
        "the row that the record refers to does not exist: import it first. If it is in the same "
        "file, reprocess this batch when it has ended.",
    ),
    (
        r"^(40001|40P01) ",
        "other transactions kept changing the same rows: reprocess the item, with a lower "
        "concurrency if it happens again.",
    ),
    (
        r"^55P03 ",
        "another session holds a lock: reprocess the item when that session has ended "
        "(pg_stat_activity and pg_locks show it), or increase lock_timeout.",
    ),
    (
        r"^57014 .*statement timeout",
        "make the statement faster, or increase statement_timeout where it is set (database, role "
        "or processor).",
    ),
    (
        r"took longer than item_timeout",
        "find out what the item waited for (a lock, another system, a slow statement), or "
        "increase the processor's item_timeout.",
    ),
    (
        r"current transaction is aborted",
        "the processor caught an earlier SQL error and continued: it has to run that statement "
        "inside a savepoint (`ctx.savepoint`).",
    ),
    (
        r"another operation is in progress",
        "the processor has to wait for each statement before the next, and must not start tasks.",
    ),
    (
        r"42501 .*\b(?:reliable_imports|settle_item|import_[a-z_]+)\b",
        "the processor had switched to another role when the item's outcome was stored: run RESET "
        "ROLE at the end of process_item, or grant that role the same privileges on the schema "
        "reliable_imports.",
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
        "the processor's model requires a time with a time zone, such as "
        "2025-04-03T14:30:00+02:00, or a time without one, such as 2025-04-03T14:30:00: correct "
        "the records, or change the field's type.",
    ),
    (
        r"(int|float|decimal)_(parsing$|type)",
        "numbers must be like 1234.56: a point before the decimals, no thousands separators, "
        "units, currency signs or invisible characters. Correct the records, or add a validator "
        "for other forms to the processor's model.",
    ),
    (
        r"int_from_float",
        "the number has decimals, but the field takes whole numbers: correct the records, or make "
        "the field a Decimal in the processor's model.",
    ),
    (
        r"finite",
        "the field does not accept NaN and infinity: correct the records, or make the field a "
        "float, or a Decimal that allows them, in the processor's model.",
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
        "the field is a text, but the record has a value of another type: put the value in "
        "quotes, or let the processor's model convert it (coerce_numbers_to_str for numbers).",
    ),
    (
        r"(list|dict|set|tuple|model|dataclass)_.*type",
        "the field is a list or an object, which a CSV file cannot represent: use JSON, or add a "
        "validator that parses the text to the processor's model.",
    ),
)
_MISSING = (
    "the record has no value for this field: fill it in, or make the field optional in the "
    "processor's model (a default, or a type that allows None)."
)
_EMPTY = (
    "the value is an empty text: fill it in, or let the field allow None and list the empty text "
    "in the processor's null_values."
)


def for_message(text: str) -> str | None:
    """The hint for an error, given its SQLSTATE and message; None if there is none."""
    return next((hint for pattern, hint in _MESSAGES if re.search(pattern, text, re.DOTALL)), None)


def for_fields(fields: Sequence[dict[str, Any]]) -> str | None:
    """The hint for the first of a record's field errors that has one."""
    return next(filter(None, map(_for_field, fields)), None)


def _for_field(field: dict[str, Any]) -> str | None:
    # Rules of the user's own model, such as string_too_short, explain themselves.
    hint = next((hint for name, hint in _FIELDS if re.match(name, field["type"])), None)
    if field["type"] == "missing" or (hint and field["input"] == "None"):
        return _MISSING
    return _EMPTY if hint and field["input"] == "''" else hint
