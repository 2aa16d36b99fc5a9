"""list, show, items, item, logs, types: the commands that change nothing."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from ..errors import BatchNotFound
from ..manager import BatchManager
from ..models import BatchStatus, BatchSummary, ImportBatch, ItemStatus, LogLevel
from ..processors.registry import Registry
from .import_file import full_group
from .invocation import Invocation, make_working_directory_importable
from .options import LARGEST_NUMBER, BatchName, BatchType, Group, ItemNumber
from .run import show_summary
from .views import TypeRow, batches_table, edit_line, item_view, items_table, log_line, types_table

ALL_GROUPS = 50
ITEMS_SHOWN = 50

AT_MOST = "Show at most N."
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help=AT_MOST)]
LEVELS = tuple(LogLevel)


async def list_batches(
    cli: Invocation,
    *,
    type: BatchType = None,  # noqa: A002 - the option's name
    status: Annotated[
        BatchStatus | None, typer.Option("--status", "-s", help="Only batches with this status.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help=AT_MOST)] = 20,
) -> None:
    """List batches, newest first."""
    async with cli.manager() as manager:
        batches = manager.list_batches(batch_type=type, status=status, limit=limit)
        if cli.output.json:
            async for batch, summary in _with_summaries(manager, batches):
                cli.output.record(
                    summary.as_dict()
                    | {"metadata": batch.metadata, "source_columns": batch.source_columns}
                )
            return
        rows = [summary async for _, summary in _with_summaries(manager, batches)]
    if not rows:
        cli.output.note("No batches match.")
        return
    cli.output.show(batches_table(rows, cli.output.result.width))


async def show(cli: Invocation, *, batch: BatchName) -> None:
    """Show the status of a batch, with its failures by cause."""
    async with cli.manager() as manager:
        summary = await manager.get_batch_summary(await manager.find_batch(batch))
        await show_summary(cli, manager, summary, groups=ALL_GROUPS)


async def items(
    cli: Invocation,
    *,
    batch: BatchName,
    status: Annotated[
        ItemStatus | None, typer.Option("--status", "-s", help="Only items with this status.")
    ] = None,
    group: Group = None,
    after: Annotated[
        int,
        typer.Option(
            "--after", min=0, max=LARGEST_NUMBER, metavar="N", help="Only items after item N."
        ),
    ] = 0,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, metavar="N", help=AT_MOST, show_default="50; JSON: all"
        ),
    ] = None,
) -> None:
    """List the items of a batch."""
    if limit is None and not cli.output.json:
        limit = ITEMS_SHOWN
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        if group is not None:
            group = await full_group(manager, batch, group)
        matching = manager.list_items(
            batch_id, status=status, group=group, after=after, limit=limit
        )
        if cli.output.json:
            async for item in matching:
                cli.output.record(item.as_dict())
            return
        rows = [item async for item in matching]
    if not rows:
        cli.output.note("No items match.")
        return
    cli.output.show(items_table(rows, cli.output.result.width))
    if len(rows) == limit:
        cli.output.note(f"There may be more: --after {rows[-1].item_number}", "dim")


async def item(cli: Invocation, *, batch: BatchName, item_number: ItemNumber) -> None:
    """Show one item: its record, its outcome, its edits and its log."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        shown = await manager.get_item(batch_id, item_number)
        lines = [line async for line in manager.get_logs(batch_id, item_number=item_number)]
        edits = await manager.item_history(batch_id, item_number)
    if cli.output.json:
        logged = [line.as_dict() for line in lines]
        history = [edit.as_dict() for edit in edits]
        cli.output.record(shown.as_dict() | {"logs": logged, "edits": history})
        return
    cli.output.show(*item_view(shown), *map(edit_line, edits))
    cli.output.lines(log_line(line) for line in lines)


async def logs(
    cli: Invocation,
    *,
    batch: BatchName,
    item: Annotated[
        int | None,
        typer.Option("--item", min=1, max=LARGEST_NUMBER, metavar="N", help="Only item N."),
    ] = None,
    level: Annotated[
        LogLevel | None, typer.Option("--level", "-l", help="Only this level and above.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Show the log of a batch, oldest first."""
    levels = None if level is None else LEVELS[LEVELS.index(level) :]
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        await manager.get_batch(batch_id)
        async for line in manager.get_logs(batch_id, item_number=item, levels=levels, limit=limit):
            if cli.output.json:
                cli.output.record(line.as_dict())
            else:
                cli.output.lines([log_line(line)])


async def types(cli: Invocation) -> None:
    """List the batch types of your processors. Needs no database."""
    registry, packages = Registry(), cli.settings().processors
    make_working_directory_importable()
    for package in packages:
        registry.discover(package)
    rows = [_type_row(registry, name) for name in registry.batch_types]
    if cli.output.json:
        for row in rows:
            cli.output.record(row)
    elif rows:
        cli.output.show(types_table(rows))
    elif packages:
        cli.output.note(f"No processors were found in {', '.join(packages)}.")
    else:
        cli.output.note(
            "No processors are named. Name their package: --processors myapp.processors"
        )


async def _with_summaries(
    manager: BatchManager, batches: AsyncIterator[ImportBatch]
) -> AsyncIterator[tuple[ImportBatch, BatchSummary]]:
    async for batch in batches:
        try:
            yield batch, await manager.get_batch_summary(batch.id)
        except BatchNotFound:  # purged meanwhile
            continue


def _type_row(registry: Registry, name: str) -> TypeRow:
    processor = registry.get(name)
    cls = type(processor)
    return TypeRow(
        batch_type=name,
        processor=f"{cls.__module__}.{cls.__qualname__}",
        schema=_json_schema(processor.model()),
    )


def _json_schema(model: TypeAdapter[Any] | None) -> dict[str, Any] | None:
    if model is None:
        return None
    try:
        return model.json_schema()
    except PydanticUserError:  # a model with a type that JSON Schema cannot describe
        return {}
