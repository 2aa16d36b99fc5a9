"""Edits: new records for failed items, and the check of a new record against the model.

The old record is kept in the item's history.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from anyio import to_thread
from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from .. import exact_json
from ..database.pool import Database
from ..errors import BatchNotFound, EditNotAccepted, EditRefused, ItemNotFound
from ..execution.prepare import with_data
from ..loading.records import Limits, from_value
from ..models import ImportBatchItem, ItemStatus
from ..processors.processor import BaseProcessor
from ..store import items, repairs, reprocessing
from ..store.repairs import FailedItem

Change = Callable[[Any], Mapping[str, Any] | None]
PAGE = 500
ROOT_SECONDS = 10.0
"""How long an edit waits for a reprocessing that is being created and may take the item."""
Record = Mapping[str, Any]
Problem = tuple[tuple[str, ...], str]
"""The place in a record, and the message."""


async def edit_item(
    database: Database,
    batch_id: UUID,
    item_number: int,
    new_data: Mapping[str, Any],
    limits: Limits,
    *,
    actor: str | None,
    reason: str | None,
) -> None:
    """Replace the record of one failed item.

    Raises:
        ItemNotFound: The item does not exist.
        EditRefused: It has not failed, is being reprocessed, or the new record cannot be stored.
    """
    text = await to_thread.run_sync(_storable, new_data, item_number, limits)
    async with database.connection() as conn, conn.transaction(isolation="read_committed"):
        known = await reprocessing.share_root(conn, batch_id, ROOT_SECONDS)
        if known and await repairs.lock_failed(conn, batch_id, item_number=item_number):
            await repairs.edit(conn, batch_id, [item_number], [text], actor=actor, reason=reason)
            return
        item = await items.get(conn, batch_id, item_number)
    if item is None:
        raise ItemNotFound(batch_id, item_number)
    if item.status is not ItemStatus.FAILED:
        raise EditRefused(f"Item {item_number} is {item.status}; only failed items can be edited.")
    raise EditRefused(
        f"Item {item_number} was moved to batch {item.reprocessed_by} for reprocessing.",
        hint="if it failed there again, edit it in that batch.",
    )


async def edit_items(
    database: Database,
    batch_id: UUID,
    change: Change,
    limits: Limits,
    *,
    group: str | None,
    actor: str | None,
    reason: str | None,
) -> int:
    """Replace the records of failed items by the results of `change`, all or none.

    Returns:
        How many records were replaced.

    Raises:
        BatchNotFound: The batch does not exist.
        EditRefused: A new record cannot be stored.
    """
    count = after = 0
    async with (
        database.connection(seconds=None) as conn,
        conn.transaction(isolation="read_committed"),
    ):
        if not await reprocessing.share_root(conn, batch_id, ROOT_SECONDS):
            raise BatchNotFound(batch_id)
        while page := await repairs.lock_failed(
            conn, batch_id, group=group, after=after, limit=PAGE
        ):
            after = page[-1].item_number
            changed = {item.item_number: _changed(item, change) for item in page}
            texts = {
                number: _storable(record, number, limits)
                for number, record in changed.items()
                if record is not None
            }
            await repairs.edit(
                conn, batch_id, list(texts), list(texts.values()), actor=actor, reason=reason
            )
            count += len(texts)
    return count


def check_edit(
    item: ImportBatchItem[Any],
    new_data: Record,
    columns: Sequence[str] | None,
    processor: BaseProcessor[Any] | None,
) -> None:
    """Check the changes of a new record.

    Errors that the old record had too, in values that are not changed, are accepted, so that a
    record can be corrected step by step.

    Args:
        item: The item with its old record.
        new_data: The new record.
        columns: The columns of the source, if it had any.
        processor: The processor whose model checks the values; without it, only the names of
            fields are checked.

    Raises:
        EditNotAccepted: A field is unknown, or the model refuses a value.
    """
    before = item.source_data if isinstance(item.source_data, Mapping) else {}
    changed = {name for name in new_data if name not in before or before[name] != new_data[name]}
    changed |= before.keys() - new_data.keys()
    unknown = _unknown_fields(before, new_data, columns, processor)
    problems = [f"{name}: there is no such field" for name in unknown]
    changed -= set(unknown)
    if processor is not None:
        old = set(_errors(processor, before))
        problems += [
            f"{'.'.join(location)}: {message}" if location else message
            for location, message in _errors(processor, new_data)
            if changed & set(location) or (location, message) not in old
        ]
    if problems:
        raise EditNotAccepted(item.item_number, problems)


def _changed(item: FailedItem, change: Change) -> Mapping[str, Any] | None:
    return change(item.raw if item.text is None else exact_json.read(item.text))


def _storable(new_data: Mapping[str, Any], item_number: int, limits: Limits) -> str:
    record = from_value(new_data, limits=limits)
    if record.text is None:
        raise EditRefused(
            f"The new record of item {item_number} cannot be stored: {record.reason}",
            hint="nothing was changed.",
        )
    return record.text.decode()


def _unknown_fields(
    before: Record,
    new_data: Record,
    columns: Sequence[str] | None,
    processor: BaseProcessor[Any] | None,
) -> list[str]:
    """The fields of a new record that neither the old record, the source nor the model has."""
    named = {*(columns or ())} | (_fields(processor) if processor else set())
    known = {*before} | named
    # If neither a source nor a model names the fields, a record without an old field may be a
    # different record, with any fields.
    any_field = (not named and bool(before.keys() - new_data.keys())) or (
        processor is not None and _accepts_any_field(processor)
    )
    return [] if any_field or not known else sorted(new_data.keys() - known)


def _errors(processor: BaseProcessor[Any], record: Record) -> Iterator[Problem]:
    """The errors of the processor's model for a record."""
    item: ImportBatchItem[Any] = ImportBatchItem(
        batch_id=UUID(int=0), item_number=1, source_data=dict(record)
    )
    try:
        with_data(processor, item)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_context=False, include_input=False):
            yield tuple(map(str, error["loc"])), error["msg"]
    except Exception as exc:  # noqa: BLE001 - a model's own code may raise anything
        yield (), f"{type(exc).__name__}: {exc}"


def _schema(processor: BaseProcessor[Any]) -> dict[str, Any]:
    model = processor.model()
    try:
        return {} if model is None else model.json_schema()
    except PydanticUserError:  # JSON Schema cannot describe it
        return {}


def _fields(processor: BaseProcessor[Any]) -> set[str]:
    schemas = _object_schemas(_schema(processor))
    return {name for schema in schemas for name in schema.get("properties", ())}


def _accepts_any_field(processor: BaseProcessor[Any]) -> bool:
    """Whether the model accepts fields that it does not name."""
    schemas = _object_schemas(_schema(processor))
    return any(schema.get("additionalProperties") for schema in schemas)


def _object_schemas(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas of a record: that of the model, or those of a union's members."""
    pending, definitions, seen = [root], root.get("$defs", {}), set[str]()
    while pending:
        schema = pending.pop()
        yield schema
        for keyword in ("oneOf", "anyOf", "allOf"):
            pending += schema.get(keyword, ())
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name in definitions and name not in seen:
            seen.add(name)
            pending.append(definitions[name])
