"""failures, edit, reprocess: from failed records to imported ones."""

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
from .import_file import full_group
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
        "--item", min=1, max=LARGEST_NUMBER, metavar="N", help="Only this item; repeatable."
    ),
]
FromFile = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="FILE",
        help="Exactly the rows of a file that `failures --export` wrote and you corrected.",
    ),
]
Canary = Annotated[
    int | None,
    typer.Option(
        "--canary", min=1, metavar="N", help="First only N items; the rest if enough succeed."
    ),
]
MinSuccess = Annotated[
    float,
    typer.Option("--min-success", min=0, max=1, metavar="SHARE", help="Of the canary, 0 to 1."),
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
        str | None, typer.Option("--format", help="csv or jsonl; by default by FILE's name.")
    ] = None,
    excel: Annotated[
        bool,
        typer.Option(
            "--excel", help="Begin CSV with a byte order mark: Excel then knows that it is UTF-8."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Show the outstanding failures of an import and its reprocessings; or export them.

    Failures that a later batch has completed, or is running again, are left out; `show` has them.
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
        family = await manager.lineage(batch_id) if not summary.outstanding_items else ()
    _show(cli, [one for one in groups if group in {None, one.group}], group, summary, family)


def _show(
    cli: Invocation,
    shown: Sequence[FailureGroup],
    group: str | None,
    summary: BatchSummary,
    family: Sequence[BatchSummary],
) -> None:
    """What is outstanding; or why nothing is."""
    if cli.output.json:
        for one in shown:
            cli.output.record(one.as_dict())
    elif shown and group is not None:
        cli.output.show(groups_view(shown))
    elif summary.outstanding_items and group is None:
        cli.output.show(*outstanding_view(summary, shown))
    else:
        cli.output.note(_nothing_outstanding(family, group))


def _nothing_outstanding(family: Sequence[BatchSummary], group: str | None) -> str:
    if group is not None:
        return "Nothing of this group is outstanding."
    if any(one.failed_items for one in family):
        return "Nothing is outstanding: later batches completed every failure."
    return "Nothing failed."


async def edit(
    cli: Invocation,
    *,
    batch: BatchName,
    item_number: ItemNumber,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A new value; repeatable."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="JSON", help="Or the whole new record.")
    ] = None,
    reason: Reason = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Save also an unknown field or a value the model refuses."),
    ] = False,
) -> None:
    """Change the record of a failed item; the old one is kept. Then rerun it with `reprocess`.

    A field that neither the record, its source nor the model has is refused, and so is a value that
    the model refuses, where --processors names the processor.
    """
    if (change is None) == (data is None):
        raise UsageRefused("edit needs --set NAME=VALUE or --data JSON, and not both.")
    async with cli.manager(discover=not force) as manager:
        batch_id = await manager.find_batch(batch)
        item = await manager.get_item(batch_id, item_number)
        record = _object(data) if data is not None else _with_changes(item, change or [])
        await manager.update_item_source(
            batch_id, item_number, record, reason=reason, actor=cli.actor, force=force
        )
        changed = await manager.get_item(batch_id, item_number)
    if cli.output.json:
        cli.output.record(changed.as_dict())
        return
    step = f"reliable-imports reprocess {tail(batch_id)} --item {item_number}{cli.repeated}"
    cli.output.show(f"Item {item_number} has its new record. Run it: {step}")


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
        raise UsageRefused("--all means every item; it goes with no other selection.")
    if from_file is not None and (group or item or canary or everything):
        raise UsageRefused("--from-file runs exactly the file's rows; it goes with no selection.")
    if encoding is not None and from_file is None:
        raise UsageRefused("--encoding says how to read a file.", hint="pass --from-file as well.")
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
        f"Run all {counted(summary.total_items, 'item')} of batch {tail(batch_id)} again, "
        f"including {number(summary.completed_items)} that completed?",
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
    if Path(target).is_file() and not yes:  # noqa: ASYNC240 - one look, nobody waits for us
        raise UsageRefused(f"{target} exists.", hint="pass --yes to overwrite it.")
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
    cli.output.note(f"{target} is written. Correct the records in it, then: {step}")


@contextmanager
def _writing(target: str) -> Iterator[None]:
    """Tell a file that cannot be written from a database that cannot be reached."""
    try:
        yield
    except OSError as exc:
        raise UsageRefused(
            f"{target} cannot be written: {exc.strerror or exc}.",
            hint="check the folder, its rights and the space on its disk, or name another file.",
        ) from exc


def _kind(target: str, wanted: str | None) -> ExportFormat:
    name = wanted or ("jsonl" if target.endswith((".jsonl", ".ndjson")) else "csv")
    if name == "csv":
        return "csv"
    if name == "jsonl":
        return "jsonl"
    raise UsageRefused(f"Failures cannot be exported as {name}.", hint="--format csv or jsonl.")


def _object(text: str) -> dict[str, Any]:
    try:
        value = exact_json.read_unchecked(text)
    except ValueError as exc:
        raise UsageRefused(f"--data is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise UsageRefused("--data must be a JSON object.", hint='write \'{"dest": "SJU"}\'')
    return value


def _with_changes(item: ImportBatchItem[Any], changes: list[str]) -> dict[str, Any]:
    record = dict(item.source_data or {})
    for change in changes:
        name, found, text = change.partition("=")
        if not found:
            raise UsageRefused(f"--set {change} has no value.", hint="write --set NAME=VALUE.")
        record[name] = _value(text, record.get(name, ""))
    return record


def _value(text: str, before: object) -> object:
    """Text; but JSON, where that is valid, if the old value is not a text."""
    if not isinstance(before, str):
        try:
            return exact_json.read_unchecked(text)
        except ValueError:
            pass
    return text
