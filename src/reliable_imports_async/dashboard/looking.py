"""The pages that only show."""

import inspect
from typing import Any

from starlette.responses import Response

from ..canary import stopped_by
from ..errors import ItemNotFound
from ..models import BatchStatus, BatchSummary, ImportBatch, ItemStatus
from . import charts
from .rendering import render
from .tree import lineage_tree
from .visits import Refused, Visit

BATCHES, ITEMS, LOGS, GROUPS = 25, 50, 100, 12
LARGEST_NUMBER = 2_147_483_647


async def batches(visit: Visit) -> Response:
    """All batches, newest first."""
    status = _choice(BatchStatus, visit.given("status"))
    before = visit.given("before")
    visible = await visit.call.visible()
    async with visit.call.reading():
        found = await _page_of_batches(visit, status=status, before=before, limit=BATCHES + 1)
        hidden = [name for name, one in visible.items() if one is not True]
        minutes = () if before else await visit.manager.throughput(without=hidden)
    return render(
        visit,
        "batches.html",
        batches=found[:BATCHES],
        next=found[BATCHES - 1].batch_id if len(found) > BATCHES else None,
        chart=charts.throughput(minutes),
        status=status,
        search=visit.given("search"),
        batch_type=visit.given("batch_type"),
        statuses=list(BatchStatus),
        types=visit.manager.registry.batch_types,
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
            before=None if before is None else await visit.manager.find_batch(before),
            visible=await visit.call.visible(),
            limit=limit,
        )
    ]
    known = await visit.manager.batch_progress(listed)
    return [known[one] for one in listed if one in known]


async def batch(visit: Visit) -> Response:
    """One batch: where it stands, what failed and why, what came of it."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        summary = await visit.manager.get_batch_summary(row.id)
        ticks, step = await visit.manager.timeline(row.id, row.total_items)
        family = await _family(visit, row)
        return render(
            visit,
            "batch.html",
            batch=row,
            summary=summary,
            tree=lineage_tree(family),
            root=next((one for one in family if one.batch_id == row.root_batch_id), summary),
            chart=charts.timeline(ticks, step),
            groups=await _groups(visit, summary),
            more_groups=max(0, len(summary.groups) - GROUPS),
            source=await visit.manager.source_details(row.id),
            first_items=await _first_items(visit, row),
            logs=await visit.manager.latest_logs(row.id, limit=12),
            canary=_canary(row, summary),
            known=row.batch_type in visit.manager.registry.batch_types,
        )


async def _family(visit: Visit, row: ImportBatch) -> list[BatchSummary]:
    """The lineage; only the root says what is outstanding in all of it."""
    ids = [
        one.id
        async for one in visit.manager.list_batches(root_batch_id=row.root_batch_id, limit=200)
    ]
    known = await visit.manager.batch_progress(ids)
    family = [known[one] for one in reversed(ids) if one in known]
    if len(family) < 2:
        return family
    root = await visit.manager.get_batch_summary(row.root_batch_id)
    return [root if one.batch_id == root.batch_id else one for one in family]


async def _groups(visit: Visit, summary: BatchSummary) -> list[tuple[Any, Any]]:
    return [
        (group, await visit.manager.group_glance(summary.batch_id, group.group))
        for group in summary.groups[:GROUPS]
    ]


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
        summary = await visit.manager.get_batch_summary(row.id)
    return render(
        visit,
        "items.html",
        batch=row,
        summary=summary,
        items=found[:ITEMS],
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
    return render(
        visit,
        "item.html",
        batch=row,
        item=found,
        record=in_order(found.source_data, row.source_columns),
        raw=(found.raw or b"").decode("utf-8", "backslashreplace"),
        wrong=wrong_fields(found.failure.fields if found.failure else (), found.source_data),
        lines=lines[:LOGS],
        history=history,
    )


def in_order(record: Any, columns: tuple[str, ...] | None) -> Any:
    """A record with its fields as the file has them; jsonb keeps no order."""
    if not isinstance(record, dict) or not columns:
        return record
    known = {name: record[name] for name in columns if name in record}
    return known | record


def wrong_fields(errors: Any, record: Any) -> dict[str, list[str]]:
    """The messages of field errors by field, as far as the record has the field."""
    names = sorted(record, key=len, reverse=True) if isinstance(record, dict) else []
    wrong: dict[str, list[str]] = {}
    for one in errors:
        place, text = str(one.get("loc", "")), str(one.get("msg", ""))
        known = [name for name in names if place == name or place.startswith(f"{name}.")]
        name = known[0] if known else place.partition(".")[0]
        deeper = place[len(name) + 1 :]
        wrong.setdefault(name, []).append(f"{deeper}: {text}" if deeper else text)
    return wrong


async def logs(visit: Visit) -> Response:
    """The log lines of a batch, newest first."""
    async with visit.call.reading():
        row = await visit.call.batch("view")
        before = visit.number("before")
        found = await visit.manager.latest_logs(row.id, before=before, limit=LOGS + 1)
    following = found[LOGS - 1].log_id if len(found) > LOGS else None
    return render(
        visit, "logs.html", batch=row, lines=found[:LOGS], next=following, first=before is None
    )


async def batch_types(visit: Visit) -> Response:
    """The batch types that this server knows."""
    types = []
    async with visit.call.reading():
        visible = await visit.call.visible()
        for name in visit.manager.registry.batch_types:
            listed = visit.manager.list_batches(batch_type=name, visible=visible, limit=1)
            types.append((name, _description(visit, name), [one async for one in listed]))
    return render(visit, "types.html", types=types)


async def batch_type(visit: Visit) -> Response:
    """One batch type: what its records look like, and its latest batches."""
    name = visit.call.request.path_params["name"]
    processor = visit.manager.registry.get(name)
    model = processor.model()
    async with visit.call.reading():
        visible = await visit.call.visible()
        listed = visit.manager.list_batches(batch_type=name, visible=visible, limit=BATCHES)
        ids = [one.id async for one in listed]
        known = await visit.manager.batch_progress(ids)
    schema = None if model is None else model.json_schema()
    required = (schema or {}).get("required", ())
    return render(
        visit,
        "type.html",
        name=name,
        description=_description(visit, name),
        schema=schema,
        fields=[
            (field, _kind(about), field in required, about.get("description", ""))
            for field, about in (schema or {}).get("properties", {}).items()
        ],
        batches=[known[one] for one in ids if one in known],
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
