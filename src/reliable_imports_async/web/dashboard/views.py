"""The pages that only show."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.responses import Response

from ...errors import BatchNotFound, ItemNotFound
from ...manager import VALUES_SAMPLE
from ...models import (
    BatchStatus,
    BatchSummary,
    FailureGroup,
    FailureGroupPreview,
    ImportBatch,
    ItemStatus,
)
from ...repair.reprocess import stopped_by
from . import charts
from .record_fields import as_rows, in_order, wrong_in
from .templating import render
from .visit import Refused, Visit


@dataclass(frozen=True, slots=True)
class Branch:
    """A batch, and how deep it stands in the tree."""

    summary: BatchSummary
    depth: int


def lineage_tree(family: Sequence[BatchSummary]) -> tuple[Branch, ...]:
    """The batches of a lineage, each below its parent, siblings oldest first."""
    children: dict[UUID | None, list[BatchSummary]] = {}
    known = {one.batch_id for one in family}
    for one in family:
        parent = one.parent_batch_id if one.parent_batch_id in known else None
        children.setdefault(parent, []).append(one)
    found: list[Branch] = []
    waiting = [(one, 0) for one in reversed(children.get(None, []))]
    while waiting:
        one, depth = waiting.pop()
        found.append(Branch(one, depth))
        waiting += [(child, depth + 1) for child in reversed(children.get(one.batch_id, []))]
    return tuple(found)


BATCHES, ITEMS, LOGS, GROUPS, PARTS = 25, 50, 100, 12, 100
LARGEST_NUMBER = 2_147_483_647


async def batches(visit: Visit) -> Response:
    """All batches, newest first."""
    status = _choice(BatchStatus, visit.given("status"))
    before = visit.given("before")
    visible = await visit.call.visible()
    async with visit.call.reading():
        found = await _page_of_batches(visit, status=status, before=before, limit=BATCHES + 1)
        minutes = () if before else await visit.manager.throughput(visible=visible)
    return await render(
        visit,
        "batches.html",
        batches=found[:BATCHES],
        next=found[BATCHES - 1].batch_id if len(found) > BATCHES else None,
        chart=charts.throughput(minutes),
        status=status,
        search=visit.given("search"),
        batch_type=visit.given("batch_type"),
        statuses=list(BatchStatus),
        types=await visit.call.known_types(),
        first=before is None,
    )


async def _page_of_batches(
    visit: Visit, *, status: BatchStatus | None, before: str | None, limit: int
) -> list[BatchSummary]:
    listed = [
        one.id
        async for one in visit.manager.list_batches(
            batch_type=visit.given("batch_type"),
            status=status,
            search=visit.given("search"),
            before=await _found(visit, before),
            visible=await visit.call.visible(),
            limit=limit,
        )
    ]
    known = await visit.manager.batch_progress(listed)
    return [known[one] for one in listed if one in known]


async def _found(visit: Visit, name: str | None) -> UUID | None:
    """The batch that a link names by its id, or somebody by a part of one that they may see."""
    try:
        return None if name is None else UUID(name)
    except ValueError:
        visible = await visit.call.visible()
    listed = visit.manager.list_batches(search=name, visible=visible, limit=PARTS)
    found = [one.id async for one in listed if str(name).lower() in str(one.id)]
    if len(found) != 1:
        raise BatchNotFound(str(name))
    return found[0]


async def batch(visit: Visit) -> Response:
    """One batch: where it stands, what failed and why, what came of it."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        summary = await visit.manager.batch_overview(row.id)
        groups = summary.groups[:GROUPS]
        family = await _family(visit, row)
        first_items = await _first_items(visit, row)
        return await render(
            visit,
            "batch.html",
            batch=row,
            summary=summary,
            tree=lineage_tree(family),
            outstanding=summary.outstanding_items,
            chart=await _timeline(visit, summary),
            groups=await _glances(visit, row.id, groups),
            sampled=_sampled(groups),
            more_groups=len(summary.groups) - len(groups),
            source=await visit.manager.source_details(row.id),
            first_items=first_items,
            first_rows=partial(as_rows, first_items, row.source_columns),
            logs=await visit.manager.latest_logs(row.id, limit=12),
            canary=_canary(row, summary),
            nothing_to_do=visit.given("nothing") is not None,
            known=row.batch_type in visit.manager.registry.batch_types,
            may=await visit.may(row),
        )


async def _family(visit: Visit, row: ImportBatch) -> list[BatchSummary]:
    """The lineage, oldest first."""
    ids = [
        one.id
        async for one in visit.manager.list_batches(root_batch_id=row.root_batch_id, limit=200)
    ]
    known = await visit.manager.batch_progress(ids)
    return [known[one] for one in reversed(ids) if one in known]


def _sampled(groups: Sequence[FailureGroup]) -> int:
    """Among how many items of each cause to look for values: the causes share one budget."""
    named = sum(one.sqlstate is not None for one in groups)
    return VALUES_SAMPLE // max(1, named)


async def _glances(
    visit: Visit, batch_id: UUID, groups: Sequence[FailureGroup]
) -> list[tuple[FailureGroup, FailureGroupPreview]]:
    """Each cause with its values, where PostgreSQL has named any, and samples."""
    sampled = _sampled(groups)
    glance = visit.manager.failure_group_preview
    return [
        (one, await glance(batch_id, one.group, sampled=sampled if one.sqlstate else 0))
        for one in groups
    ]


async def _timeline(visit: Visit, summary: BatchSummary) -> charts.Chart | None:
    if not summary.settled_items:
        return None
    ticks, step = await visit.manager.timeline(summary.batch_id, summary.total_items)
    return charts.timeline(ticks, step)


async def _first_items(visit: Visit, row: ImportBatch) -> tuple[Any, ...]:
    """The first rows of a batch that has not been started: what is about to be imported."""
    if row.status != BatchStatus.PENDING:
        return ()
    return await visit.manager.item_previews(row.id, limit=10)


def _canary(row: ImportBatch, summary: BatchSummary) -> dict[str, Any] | None:
    if "canary" not in row.options:
        return None
    stopped = stopped_by(row.options, summary) if summary.finished_at else None
    return {"group": row.options["canary"]["group"], "stopped": stopped}


async def items(visit: Visit) -> Response:
    """The items of a batch, a page at a time."""
    status = _choice(ItemStatus, visit.given("status"))
    after = min(visit.number("after", default=0) or 0, LARGEST_NUMBER - 1)
    group = visit.given("group")
    async with visit.call.reading():
        row = await visit.call.batch("view")
        found = await visit.manager.item_previews(
            row.id, status=status, group=group, after=after, limit=ITEMS + 1
        )
        summary = await visit.manager.batch_overview(row.id, causes=group is not None)
        shown = found[:ITEMS]
        messages = await visit.call.without_hidden([one.message for one in shown])
    return await render(
        visit,
        "items.html",
        batch=row,
        may=await visit.may(row),
        summary=summary,
        items=[replace(one, message=text) for one, text in zip(shown, messages, strict=True)],
        next=found[ITEMS - 1].item_number if len(found) > ITEMS else None,
        status=status,
        group=group,
        about=next((one for one in summary.groups if one.group == group), None),
        statuses=list(ItemStatus),
        first=after == 0,
    )


async def item(visit: Visit) -> Response:
    """One item with everything stored about it."""
    number = visit.call.request.path_params["item_number"]
    async with visit.call.reading():
        row = await visit.call.batch("view")
        if not 0 < number <= LARGEST_NUMBER:
            raise ItemNotFound(row.id, number)
        found = await visit.manager.get_item(row.id, number)
        lines = [line async for line in visit.manager.get_logs(row.id, item_number=number)]
        history = await visit.manager.item_history(row.id, number)
        (reason,) = await visit.call.without_hidden([found.skip_reason])
    return await render(
        visit,
        "item.html",
        batch=row,
        may=await visit.may(row),
        skip_reason=reason,
        item=found,
        record=partial(in_order, found.source_data, row.source_columns),
        raw=partial((found.raw or b"").decode, "utf-8", "backslashreplace"),
        wrong=partial(wrong_in, found),
        lines=lines[:LOGS],
        history=history,
    )


async def logs(visit: Visit) -> Response:
    """The log lines of a batch, newest first."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        before = visit.number("before")
        found = await visit.manager.latest_logs(row.id, before=before, limit=LOGS + 1)
    following = found[LOGS - 1].log_id if len(found) > LOGS else None
    return await render(
        visit, "logs.html", batch=row, lines=found[:LOGS], next=following, first=before is None
    )


async def batch_types(visit: Visit) -> Response:
    """The batch types that this visitor may see or create."""
    types = []
    async with visit.call.reading():
        visible = await visit.call.visible()
        for name in await visit.call.known_types():
            listed = visit.manager.list_batches(batch_type=name, visible=visible, limit=1)
            latest = [one async for one in listed]
            types.append((name, _description(visit, name), _fields(visit, name), latest))
    return await render(visit, "types.html", types=types)


def _fields(visit: Visit, name: str) -> list[str] | None:
    """The names of the fields of a record; None where any record is taken."""
    model = visit.manager.registry.get(name).model()
    return None if model is None else list(model.json_schema().get("properties", {}))


async def batch_type(visit: Visit) -> Response:
    """One batch type: what its records look like, and its latest batches."""
    name = visit.call.request.path_params["name"]
    if not name:
        return visit.to("/types")
    if name not in await visit.call.known_types():
        raise Refused(404, "There is no such batch type.")
    processor = visit.manager.registry.get(name)
    model = processor.model()
    async with visit.call.reading():
        visible = await visit.call.visible()
        listed = visit.manager.list_batches(batch_type=name, visible=visible, limit=BATCHES)
        ids = [one.id async for one in listed]
        known = await visit.manager.batch_progress(ids)
    schema = None if model is None else model.json_schema()
    required = (schema or {}).get("required", ())
    fields = [
        (field, _kind(about), field in required, about.get("description", ""))
        for field, about in (schema or {}).get("properties", {}).items()
    ]
    return await render(
        visit,
        "type.html",
        name=name,
        description=_description(visit, name),
        schema=schema,
        fields=fields,
        described=any(about for _, _, _, about in fields),
        batches=[known[one] for one in ids if one in known],
        may_create=await visit.call.may_create(name),
    )


def _kind(about: dict[str, Any]) -> str:
    """A field's type in a few words."""
    if "anyOf" in about:
        return " or ".join(_kind(one) for one in about["anyOf"])
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    return str(about.get("format") or about.get("type") or "anything")


def _description(visit: Visit, name: str) -> str:
    return inspect.cleandoc(type(visit.manager.registry.get(name)).__doc__ or "")


def _choice(kind: Any, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise Refused(422, "There is no such status.") from None
