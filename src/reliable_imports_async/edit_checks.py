"""Whether an edited record fits: its fields are known, and the model accepts what was changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from .errors import EditNotAccepted
from .models import ImportBatchItem
from .processors import BaseProcessor
from .readiness import with_data

Record = Mapping[str, Any]
Problem = tuple[tuple[str, ...], str]  # where, what


def check_edit(
    item: ImportBatchItem[Any],
    new_data: Record,
    columns: Sequence[str] | None,
    processor: BaseProcessor[Any] | None,
) -> None:
    """Refuse a new record that is wrong in what it changes.

    What was wrong before and is not touched may stay: a record can be corrected step by step.

    Args:
        columns: The columns of the source, where it had any.
        processor: Its model decides; without one only the names of fields are checked.

    Raises:
        EditNotAccepted: A field is unknown, or the model refuses a value.
    """
    before = item.source_data if isinstance(item.source_data, Mapping) else {}
    changed = {name for name in new_data if name not in before or before[name] != new_data[name]}
    changed |= before.keys() - new_data.keys()
    named = {*(columns or ())} | (_fields(processor) if processor else set())
    known = {*before} | named
    # Where nothing names the fields, who gives one up may mean another: the record is a new one.
    anything = (not named and bool(before.keys() - new_data.keys())) or (
        processor is not None and _takes_any_field(processor)
    )
    problems = []
    if known and not anything:
        unknown = sorted(new_data.keys() - known)
        problems = [f"{name}: there is no such field" for name in unknown]
        changed -= set(unknown)
    if processor is not None:
        old = set(_errors(processor, before))
        problems += [
            f"{'.'.join(where)}: {what}" if where else what
            for where, what in _errors(processor, new_data)
            if changed & set(where) or (where, what) not in old
        ]
    if problems:
        raise EditNotAccepted(item.item_number, problems)


def _errors(processor: BaseProcessor[Any], record: Record) -> Iterator[Problem]:
    """What the model says about a record."""
    item: ImportBatchItem[Any] = ImportBatchItem(
        batch_id=UUID(int=0), item_number=1, source_data=dict(record)
    )
    try:
        with_data(processor, item)
    except ValidationError as exc:
        for one in exc.errors(include_url=False, include_context=False, include_input=False):
            yield tuple(map(str, one["loc"])), one["msg"]
    except Exception as exc:  # noqa: BLE001 - a model's own code may raise anything
        yield (), f"{type(exc).__name__}: {exc}"


def _schema(processor: BaseProcessor[Any]) -> dict[str, Any]:
    model = processor.model()
    try:
        return {} if model is None else model.json_schema()
    except PydanticUserError:  # JSON Schema cannot describe it
        return {}


def _fields(processor: BaseProcessor[Any]) -> set[str]:
    return {name for one in _objects(_schema(processor)) for name in one.get("properties", ())}


def _takes_any_field(processor: BaseProcessor[Any]) -> bool:
    """Whether the model keeps fields that it does not name."""
    return any(one.get("additionalProperties") for one in _objects(_schema(processor)))


def _objects(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects that a record may be: the model, or each member of a union."""
    waiting, definitions, seen = [schema], schema.get("$defs", {}), set[str]()
    while waiting:
        one = waiting.pop()
        yield one
        for way in ("oneOf", "anyOf", "allOf"):
            waiting += one.get(way, ())
        name = str(one.get("$ref", "")).rpartition("/")[2]
        if name in definitions and name not in seen:
            seen.add(name)
            waiting.append(definitions[name])
