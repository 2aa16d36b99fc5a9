"""Changing the record of a failed item where it lies; the old one is kept."""

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
"""How long an edit waits for a reprocessing that is being created: it may take the record."""


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
        BatchNotFound, ItemNotFound: There is no such item.
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
        f"Item {item_number} was taken up by batch {item.reprocessed_by}.",
        hint="edit it in that batch, if it failed again.",
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
    """Replace the records of failed items by what `change` makes of them, all or none; how many.

    Raises:
        BatchNotFound: There is no such batch.
        EditRefused: A new record cannot be stored, or a reprocessing takes records right now.
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
            changed = [(one.item_number, _changed(one, change)) for one in page]
            texts = {n: _storable(new, n, limits) for n, new in changed if new is not None}
            await repairs.edit(
                conn, batch_id, list(texts), list(texts.values()), actor=actor, reason=reason
            )
            count += len(texts)
    return count


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
