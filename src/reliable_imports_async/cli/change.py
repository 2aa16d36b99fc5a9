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
from .options import BatchName, BatchType, Reason, Yes


async def pause(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """Pause a batch: running items finish, no further item starts."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        given = {} if reason is None else {"reason": reason}
        await manager.pause_batch(batch_id, actor=cli.actor, **given)
        name = tail(batch_id)
        await _changed(cli, manager, batch_id, f"is paused. Undo: reliable-imports resume {name}")


async def resume(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """Undo a pause. Then continue the batch with `process`."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        await manager.resume_batch(batch_id, reason=reason, actor=cli.actor)
        step = f"may run again. Continue: reliable-imports process {tail(batch_id)}{cli.repeated}"
        await _changed(cli, manager, batch_id, step)


async def cancel(cli: Invocation, *, batch: BatchName, reason: Reason = None) -> None:
    """End a batch for good. Items that have not started stay pending; `reprocess` can run them."""
    async with cli.manager() as manager:
        batch_id = await manager.find_batch(batch)
        await manager.cancel_batch(batch_id, reason=reason, actor=cli.actor)
        await _changed(cli, manager, batch_id, "is cancelled. Its completed items are kept.")


async def purge(
    cli: Invocation,
    *,
    batch: Annotated[
        str | None,
        typer.Argument(
            metavar="[BATCH]", help="Its id, a unique tail of it, latest, or latest:TYPE."
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Or all batches that finished longer ago: 30d, 12h, 2w.",
        ),
    ] = None,
    type: BatchType = None,  # noqa: A002 - the option's name
    yes: Yes = False,
) -> None:
    """Delete finished batches with their items and logs. Asks for confirmation.

    Rows written by your processors are kept.
    """
    if (batch is None) == (older_than is None):
        raise UsageRefused("purge needs a BATCH or --older-than, and not both.")
    if batch is not None and type is not None:
        raise UsageRefused("--type goes with --older-than.")
    span = None if older_than is None else _age(older_than)
    async with cli.manager() as manager:
        if batch is None:
            cli.confirm(
                f"Delete all batches ({type or 'any type'}) that finished more than "
                f"{older_than} ago?",
                yes=yes,
            )
            count = await manager.purge(older_than=span, batch_type=type, actor=cli.actor)
        else:
            batch_id = await manager.find_batch(batch)
            cli.confirm(await _family_question(manager, batch_id), yes=yes)
            count = await manager.purge(batch_id, actor=cli.actor)
    if cli.output.json:
        cli.output.record({"purged_batches": count})
    else:
        cli.output.show(f"{counted(count, 'batch')} deleted.")


async def _family_question(manager: BatchManager, batch_id: UUID) -> str:
    family = await manager.lineage(batch_id)
    total = sum(each.total_items for each in family)
    return (
        f"Delete batch {tail(batch_id)} with its lineage, {counted(len(family), 'batch')} "
        f"with {counted(total, 'item')}?"
    )


async def _changed(cli: Invocation, manager: BatchManager, batch_id: UUID, what: str) -> None:
    if cli.output.json:
        cli.output.record((await manager.get_batch_summary(batch_id)).as_dict())
    else:
        cli.output.show(f"Batch {batch_id} {what}")


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise UsageRefused(f"--older-than: {exc}.") from None
