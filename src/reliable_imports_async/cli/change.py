"""pause, resume, cancel, purge: the commands that change a batch without running it."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

from ..manager import BatchManager
from ..wording import counted
from .exit_codes import UsageRefused
from .formatting import parse_duration, tail
from .invocation import Invocation
from .options import BATCH_HELP, BatchName, BatchType, Reason, Yes


async def pause(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """Pause a batch: running items finish, and no further items start."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        given = {} if reason is None else {"reason": reason}
        await manager.pause_batch(batch_id, actor=cli.actor, **given)
        name = tail(batch_id)
        step = f"is paused. To resume it: reliable-imports resume {name}"
        await _report(cli, manager, batch_id, step)


async def resume(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """Resume a paused batch. Then continue it with `process`."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        await manager.resume_batch(batch_id, reason=reason, actor=cli.actor)
        process = f"reliable-imports process {tail(batch_id)}{cli.repeated}"
        await _report(cli, manager, batch_id, f"is resumed. To continue it: {process}")


async def cancel(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """Cancel a batch. Items that have not started stay pending; `reprocess` can run them."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        await manager.cancel_batch(batch_id, reason=reason, actor=cli.actor)
        await _report(cli, manager, batch_id, "is cancelled. Its completed items are kept.")


async def purge(
    cli: Invocation,
    *,
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]", help=BATCH_HELP)] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Delete all batches that finished longer ago than this: 30d, 12h, 2w.",
        ),
    ] = None,
    type: BatchType = None,  # noqa: A002 - the option's name
    yes: Yes = False,
) -> None:
    """Delete finished batches with their items and logs. Asks for confirmation.

    Rows written by your processors are kept.
    """
    if (batch is None) == (older_than is None):
        raise UsageRefused("purge takes either a BATCH or --older-than.")
    if batch is not None and type is not None:
        raise UsageRefused("--type can be used only with --older-than.")
    span = None if older_than is None else _age(older_than)
    async with cli.manager() as manager:
        if batch is None:
            batches = "batches" if type is None else f"batches of type {type}"
            cli.confirm(f"delete all {batches} that finished more than {older_than} ago", yes=yes)
            count = await manager.purge(older_than=span, batch_type=type, actor=cli.actor)
        else:
            batch_id = await manager.find_batch(batch)
            cli.confirm(await _deletion(manager, batch_id), yes=yes)
            count = await manager.purge(batch_id, actor=cli.actor)
    if cli.output.json:
        cli.output.record({"purged_batches": count})
    else:
        cli.output.show(f"{counted(count, 'batch')} deleted.")


async def _deletion(manager: BatchManager, batch_id: UUID) -> str:
    lineage = await manager.lineage(batch_id)
    total = sum(batch.total_items for batch in lineage)
    return (
        f"delete batch {tail(batch_id)} with its lineage, {counted(len(lineage), 'batch')} "
        f"with {counted(total, 'item')}"
    )


async def _report(cli: Invocation, manager: BatchManager, batch_id: UUID, change: str) -> None:
    if cli.output.json:
        cli.output.record((await manager.get_batch_summary(batch_id)).as_dict())
    else:
        cli.output.show(f"Batch {batch_id} {change}")


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise UsageRefused(f"--older-than: {exc}.") from None
