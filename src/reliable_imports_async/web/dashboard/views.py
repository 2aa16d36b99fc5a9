"""The pages that only show: batches, items, log lines and batch types."""

import inspect
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.responses import Response

from ...errors import BatchNotFound
from ...manager import VALUES_SAMPLE
from ...models import (
    BatchStatus,
    BatchSummary,
    FailureGroup,
    FailureGroupPreview,
    ImportBatch,
    ItemStatus,
    ListedBatch,
)
from ...repair.reprocess import stopped_by
from ..http.payloads import LARGEST_NUMBER
from . import charts
from .actions import group_of
from .record_fields import as_rows, in_order, wrong_in
from .templating import render
from .visit import Refused, Visit

BATCHES, ITEMS, LOGS, GROUPS, MATCHES = 25, 50, 100, 12, 100  # rows of a page or a query


async def batches(visit: Visit) -> Response:
    """All batches, newest first."""
    status = _choice(BatchStatus, visit.given("status"))
    before = visit.given("before")
    visible = await visit.call.visible()
    async with visit.call.reading():
        rows = await _page_of_batches(visit, status=status, before=before, limit=BATCHES + 1)
        minutes = () if before else await visit.manager.throughput(visible=visible)
    return await render(
        visit,
        "batches.html",
        batches=rows[:BATCHES],
        next=rows[BATCHES - 1].batch_id if len(rows) > BATCHES else None,
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
    listed = visit.manager.list_batches(
        batch_type=visit.given("batch_type"),
        status=status,
        search=visit.given("search"),
        before=await _batch_id(visit, before),
        visible=await visit.call.visible(),
        limit=limit,
    )
    return await _summaries(visit, listed)


async def _summaries(visit: Visit, listed: AsyncIterator[ListedBatch]) -> list[BatchSummary]:
    """The current summaries of listed batches, in the same order."""
    ids = [each.id async for each in listed]
    known = await visit.manager.batch_progress(ids)
    return [known[batch_id] for batch_id in ids if batch_id in known]


async def _batch_id(visit: Visit, text: str | None) -> UUID | None:
    """The batch of an id, or of a part of an id that only one visible batch has."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        visible = await visit.call.visible()
    listed = visit.manager.list_batches(search=text, visible=visible, limit=MATCHES)
    matches = [each.id async for each in listed if str(text).lower() in str(each.id)]
    if len(matches) != 1:
        raise BatchNotFound(str(text))
    return matches[0]


async def batch(visit: Visit) -> Response:
    """One batch: its state, its failures by cause, its lineage."""
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
            groups=await _with_previews(visit, row.id, groups),
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
    listed = visit.manager.list_batches(root_batch_id=row.root_batch_id, limit=200)
    return list(reversed(await _summaries(visit, listed)))


@dataclass(frozen=True, slots=True)
class Branch:
    """A batch in the tree of its lineage, with its depth."""

    summary: BatchSummary
    depth: int


def lineage_tree(family: Sequence[BatchSummary]) -> tuple[Branch, ...]:
    """The batches of a lineage, each below its parent, siblings oldest first."""
    children: dict[UUID | None, list[BatchSummary]] = {}
    known = {member.batch_id for member in family}
    for member in family:
        parent = member.parent_batch_id if member.parent_batch_id in known else None
        children.setdefault(parent, []).append(member)
    branches: list[Branch] = []
    stack = [(root, 0) for root in reversed(children.get(None, []))]
    while stack:
        member, depth = stack.pop()
        branches.append(Branch(member, depth))
        stack += [(child, depth + 1) for child in reversed(children.get(member.batch_id, []))]
    return tuple(branches)


def _sampled(groups: Sequence[FailureGroup]) -> int:
    """How many items of each cause to search for values; all causes share one budget."""
    named = sum(group.sqlstate is not None for group in groups)
    return VALUES_SAMPLE // max(1, named)


async def _with_previews(
    visit: Visit, batch_id: UUID, groups: Sequence[FailureGroup]
) -> list[tuple[FailureGroup, FailureGroupPreview]]:
    """Each cause with sample items, and with the values that PostgreSQL named."""
    sampled = _sampled(groups)
    preview = visit.manager.failure_group_preview
    return [
        (group, await preview(batch_id, group.group, sampled=sampled if group.sqlstate else 0))
        for group in groups
    ]


async def _timeline(visit: Visit, summary: BatchSummary) -> charts.Chart | None:
    if not summary.settled_items:
        return None
    ticks, step = await visit.manager.timeline(summary.batch_id, summary.total_items)
    return charts.timeline(ticks, step)


async def _first_items(visit: Visit, row: ImportBatch) -> tuple[Any, ...]:
    """The first items of a batch that has not been started, as a preview."""
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
        rows = await visit.manager.item_previews(
            row.id, status=status, group=group, after=after, limit=ITEMS + 1
        )
        summary = await visit.manager.batch_overview(row.id, causes=group is not None)
        shown = rows[:ITEMS]
        messages = await visit.call.without_hidden([each.message for each in shown])
    return await render(
        visit,
        "items.html",
        batch=row,
        may=await visit.may(row),
        summary=summary,
        items=[replace(each, message=text) for each, text in zip(shown, messages, strict=True)],
        next=rows[ITEMS - 1].item_number if len(rows) > ITEMS else None,
        status=status,
        group=group,
        about=group_of(summary, group),
        statuses=list(ItemStatus),
        first=after == 0,
    )


async def item(visit: Visit) -> Response:
    """One item with all stored data."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        number = visit.call.item_number
        stored = await visit.manager.get_item(row.id, number)
        lines = [line async for line in visit.manager.get_logs(row.id, item_number=number)]
        history = await visit.manager.item_history(row.id, number)
        (reason,) = await visit.call.without_hidden([stored.skip_reason])
    return await render(
        visit,
        "item.html",
        batch=row,
        may=await visit.may(row),
        skip_reason=reason,
        item=stored,
        record=partial(in_order, stored.source_data, row.source_columns),
        raw=partial((stored.raw or b"").decode, "utf-8", "backslashreplace"),
        wrong=partial(wrong_in, stored),
        lines=lines[:LOGS],
        history=history,
    )


async def logs(visit: Visit) -> Response:
    """The log lines of a batch, newest first."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        before = visit.number("before")
        rows = await visit.manager.latest_logs(row.id, before=before, limit=LOGS + 1)
    following = rows[LOGS - 1].log_id if len(rows) > LOGS else None
    return await render(
        visit, "logs.html", batch=row, lines=rows[:LOGS], next=following, first=before is None
    )


async def batch_types(visit: Visit) -> Response:
    """The batch types of which the visitor may see or create batches."""
    types = []
    async with visit.call.reading():
        visible = await visit.call.visible()
        for name in await visit.call.known_types():
            listed = visit.manager.list_batches(batch_type=name, visible=visible, limit=1)
            latest = [each async for each in listed]
            types.append((name, _description(visit, name), _fields(visit, name), latest))
    return await render(visit, "types.html", types=types)


def _fields(visit: Visit, name: str) -> list[str] | None:
    """The names of the fields of a record; None if any record is accepted."""
    model = visit.manager.registry.get(name).model()
    return None if model is None else list(model.json_schema().get("properties", {}))


async def batch_type(visit: Visit) -> Response:
    """One batch type: the fields of its records, and its latest batches."""
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
        latest = await _summaries(visit, listed)
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
        batches=latest,
        may_create=await visit.call.may_create(name),
    )


def _kind(about: dict[str, Any]) -> str:
    """A field's type in a few words."""
    if "anyOf" in about:
        return " or ".join(_kind(each) for each in about["anyOf"])
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
