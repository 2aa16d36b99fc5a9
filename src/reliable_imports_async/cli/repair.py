"""failures, edit, reprocess: correcting failed records and running them again."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import anyio
import typer

from .. import exact_json
from ..loading.sources import Source, read_file
from ..manager import BatchManager
from ..models import BatchSummary, FailureGroup, ImportBatchItem
from ..repair.export import ExportFormat
from ..wording import counted
from .exit_codes import UsageRefused
from .formatting import number, tail
from .import_file import full_group, json_object
from .invocation import Invocation
from .options import (
    LARGEST_NUMBER,
    BatchName,
    Concurrency,
    Encoding,
    Group,
    ItemNumber,
    Reason,
    Tolerate,
    Yes,
)
from .run import Run
from .views import groups_view, outstanding_view

REFUSED_SHOWN = 10

Items = Annotated[
    list[int] | None,
    typer.Option(
        "--item", min=1, max=LARGEST_NUMBER, metavar="N", help="Rerun only item N; repeatable."
    ),
]
FromFile = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="FILE",
        help="Rerun the rows of a file that `failures --export` wrote and you corrected.",
    ),
]
Canary = Annotated[
    int | None,
    typer.Option(
        "--canary",
        min=1,
        metavar="N",
        help="Rerun N items first, and the rest only if enough of them succeed.",
    ),
]
MinSuccess = Annotated[
    float,
    typer.Option(
        "--min-success",
        min=0,
        max=1,
        metavar="SHARE",
        help="The share of the --canary items that must succeed, 0 to 1.",
    ),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--all", help="Rerun every item, including those that succeeded. Asks for confirmation."
    ),
]


async def failures(
    cli: Invocation,
    *,
    batch: BatchName,
    group: Group = None,
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write the outstanding records to FILE (.csv or .jsonl), or - for stdout. Correct "
            "the file, then run `reprocess --from-file`.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option("--format", help="csv or jsonl; by default, the ending of FILE decides."),
    ] = None,
    excel: Annotated[
        bool,
        typer.Option(
            "--excel", help="Begin CSV with a byte order mark, so that Excel reads it as UTF-8."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Show or export the outstanding failures of an import and its reprocessings.

    Failures that a later batch fixed or is rerunning are left out; `show` includes them.
    """
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        summary = await manager.get_batch_summary(batch_id)
        groups = await manager.outstanding_failures(batch_id)
        if group is not None:
            group = await full_group(manager, batch, group)
        if batch_id != summary.root_batch_id:
            root = tail(summary.root_batch_id)
            cli.output.note(f"{tail(batch_id)} is a reprocessing of batch {root}.", "dim")
        if export is not None:
            kind = _kind(export, format)
            chunks = manager.export_failures(
                summary.root_batch_id, format=kind, group=group, byte_order_mark=excel
            )
            await _export(cli, summary.root_batch_id, chunks, export, yes=yes)
            return
        lineage = await manager.lineage(batch_id) if not summary.outstanding_items else ()
    matching = [each for each in groups if group in {None, each.group}]
    _show(cli, matching, group, summary, lineage)


def _show(
    cli: Invocation,
    groups: Sequence[FailureGroup],
    selected: str | None,
    summary: BatchSummary,
    lineage: Sequence[BatchSummary],
) -> None:
    """Show the outstanding failures, or why there are none."""
    if cli.output.json:
        for group in groups:
            cli.output.record(group.as_dict())
    elif groups and selected is not None:
        cli.output.show(groups_view(groups))
    elif summary.outstanding_items and selected is None:
        cli.output.show(*outstanding_view(summary, groups))
    else:
        cli.output.note(_nothing_outstanding(lineage, selected))


def _nothing_outstanding(lineage: Sequence[BatchSummary], selected: str | None) -> str:
    if selected is not None:
        return "No failure of this group is outstanding."
    if any(batch.failed_items for batch in lineage):
        return "Nothing is outstanding: all failures were fixed by later batches."
    return "Nothing failed."


async def edit(
    cli: Invocation,
    *,
    batch: BatchName,
    item_number: ItemNumber,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="The new value of a field; repeatable."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="JSON", help="The whole new record, instead of --set."),
    ] = None,
    reason: Reason = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Save unknown fields and values that the model refuses."),
    ] = False,
) -> None:
    """Change the record of a failed item. Then rerun it with `reprocess`.

    The old record is kept. A field that is in neither the record, its source nor the model is
    refused. If --processors names the processor, a value that its model refuses is refused too.
    """
    if (change is None) == (data is None):
        raise UsageRefused("edit takes either --set NAME=VALUE or --data JSON.")
    async with cli.manager(discover=not force) as manager:
        batch_id = await manager.find_batch(batch)
        item = await manager.get_item(batch_id, item_number)
        if data is not None:
            record = json_object("--data", data, '{"dest": "SJU"}')
        else:
            record = _with_changes(item, change or [])
        await manager.update_item_source(
            batch_id, item_number, record, reason=reason, actor=cli.actor, force=force
        )
        changed = await manager.get_item(batch_id, item_number)
    if cli.output.json:
        cli.output.record(changed.as_dict())
        return
    step = f"reliable-imports reprocess {tail(batch_id)} --item {item_number}{cli.repeated}"
    cli.output.show(f"Item {item_number} has a new record. To rerun it: {step}")


async def reprocess(  # noqa: PLR0913 - the command's options
    cli: Invocation,
    *,
    batch: BatchName,
    group: Group = None,
    item: Items = None,
    from_file: FromFile = None,
    encoding: Encoding = None,
    canary: Canary = None,
    min_success: MinSuccess = 0.9,
    everything: Everything = False,
    yes: Yes = False,
    tolerate: Tolerate = None,
    concurrency: Concurrency = None,
) -> int:
    """Rerun the outstanding failures, and only those, in a new batch linked to this one."""
    if everything and (group or item or canary):
        raise UsageRefused("--all reruns every item; it cannot be combined with a selection.")
    if from_file is not None and (group or item or canary or everything):
        raise UsageRefused(
            "--from-file reruns exactly the file's rows; it cannot be combined with a selection."
        )
    if encoding is not None and from_file is None:
        raise UsageRefused("--encoding can be used only with --from-file.")
    async with cli.manager(concurrency=concurrency, discover=True) as manager:
        batch_id = await manager.find_batch(batch)
        run = Run(cli, manager, tolerate=tolerate or 0.0)
        if from_file is not None:
            source = read_file(Path(from_file), encoding=encoding)
            return await _corrected(cli, manager, run, batch_id, source)
        if everything:
            await _confirm_all(cli, manager, batch_id, yes=yes)
        elif group is not None:
            group = await full_group(manager, batch, group)
        selection: dict[str, Any] = {"group": group, "item_numbers": item or None}
        if canary is not None:
            selection |= {"canary": canary, "min_success": min_success}
        return await run.reprocess(batch_id, everything=everything, selection=selection)


async def _confirm_all(
    cli: Invocation, manager: BatchManager, batch_id: UUID, *, yes: bool
) -> None:
    summary = await manager.get_batch_summary(batch_id)
    cli.confirm(
        f"rerun all {counted(summary.total_items, 'item')} of batch {tail(batch_id)}, "
        f"including {number(summary.completed_items)} that completed",
        yes=yes,
    )


async def _corrected(
    cli: Invocation, manager: BatchManager, run: Run, batch_id: UUID, file: Source
) -> int:
    corrected = await manager.create_corrected_batch(batch_id, file, actor=cli.actor)
    note = cli.output.note
    if corrected.unchanged:
        verb = "is" if corrected.unchanged == 1 else "are"
        rows = counted(corrected.accepted, "row")
        note(f"{number(corrected.unchanged)} of {rows} {verb} unchanged.")
    if corrected.refused_rows:
        note(f"{counted(corrected.refused_rows, 'row')} refused:", "yellow")
        for row in corrected.refused[:REFUSED_SHOWN]:
            note(f"  {row}")
        if corrected.refused_rows > REFUSED_SHOWN:
            note(f"  … and {number(corrected.refused_rows - REFUSED_SHOWN)} more")
    return await run.process(corrected.batch_id)


async def _export(
    cli: Invocation,
    batch_id: UUID,
    chunks: AsyncIterator[bytes],
    target: str,
    *,
    yes: bool,
) -> None:
    if target == "-":
        async for chunk in chunks:
            cli.output.write(chunk)
        return
    if Path(target).is_file() and not yes:  # noqa: ASYNC240 - one short call, and nothing else runs
        raise UsageRefused(f"{target} already exists.", hint="pass --yes to overwrite it.")
    with _writing(target):
        file = await anyio.open_file(target, "wb")
    try:
        async for chunk in chunks:
            with _writing(target):
                await file.write(chunk)
    finally:
        with _writing(target):
            await file.aclose()
    step = f"reliable-imports reprocess {tail(batch_id)} --from-file {target}{cli.repeated}"
    cli.output.note(f"{target} was written. Correct the records in it, then run: {step}")


@contextmanager
def _writing(target: str) -> Iterator[None]:
    """Report an OSError as a file that cannot be written, not as an unreachable database."""
    try:
        yield
    except OSError as exc:
        raise UsageRefused(
            f"{target} cannot be written: {exc.strerror or exc}.",
            hint="check that its folder exists, is writable and has free space, or name another "
            "file.",
        ) from exc


def _kind(target: str, wanted: str | None) -> ExportFormat:
    name = wanted or ("jsonl" if target.endswith((".jsonl", ".ndjson")) else "csv")
    if name == "csv":
        return "csv"
    if name == "jsonl":
        return "jsonl"
    raise UsageRefused(
        f"Failures cannot be exported as {name}.", hint="use --format csv or --format jsonl."
    )


def _with_changes(item: ImportBatchItem[Any], changes: list[str]) -> dict[str, Any]:
    record = dict(item.source_data or {})
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise UsageRefused(f"--set {change} has no value.", hint="write --set NAME=VALUE.")
        record[name] = _value(text, record.get(name, ""))
    return record


def _value(text: str, before: object) -> object:
    """The new value: text, or JSON if the old value is not a text and the new one is valid JSON."""
    if not isinstance(before, str):
        try:
            return exact_json.read_unchecked(text)
        except ValueError:
            pass
    return text
