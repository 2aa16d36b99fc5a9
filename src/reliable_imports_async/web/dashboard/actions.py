"""What changes a batch: asked for on a page of its own, done when its form is sent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from starlette.datastructures import FormData
from starlette.responses import Response

from ...models import BatchStatus, BatchSummary, ImportBatch
from ..endpoints import answer
from .templating import render
from .visit import Refused, Visit

DRY_RUN_SECONDS = 120.0
Do = Callable[[Visit, ImportBatch, FormData], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Action:
    """Something that can be done with a batch.

    Attributes:
        permission: What the application is asked whether the caller may do it.
        title: The question.
        button: The answer yes.
        text: What will happen.
        do: Does it; returns the path of the page to show then.
        takes_reason: Whether a reason may be given.
        dangerous: Whether it cannot be undone.
    """

    permission: str
    title: str
    button: str
    text: str
    do: Do
    takes_reason: bool = False
    dangerous: bool = False


async def ask(visit: Visit) -> Response:
    """Ask before something is done."""
    action, group = _action(visit), visit.given("group")
    async with visit.call.reading():
        row = await visit.call.batch(action.permission)
        summary = await visit.manager.batch_overview(row.id, causes=group is not None)
    return await render(
        visit,
        "confirm.html",
        batch=row,
        summary=summary,
        name=visit.call.request.path_params["action"],
        action=action,
        group=group,
        about=next((one for one in summary.groups if one.group == group), None),
        canary=visit.given("canary") is not None,
        size=_canary_size(summary, group),
    )


async def act(visit: Visit) -> Response:
    """Do it, and say in the log who did."""
    action = _action(visit)
    form = await visit.form()
    row = await visit.call.batch(action.permission)
    return visit.to(await action.do(visit, row, form))


def _action(visit: Visit) -> Action:
    action = ACTIONS.get(visit.call.request.path_params["action"])
    if action is None:
        raise Refused(404, "There is no such page.")
    return action


def _canary_size(summary: BatchSummary, group: str | None) -> int:
    """A tenth of what would run, at least one item and at most a hundred."""
    found = [one.count for one in summary.groups if one.group == group]
    return max(1, min(100, (found[0] if found else summary.outstanding_items) // 10))


async def _pause(visit: Visit, row: ImportBatch, form: FormData) -> str:
    reason = _reason(form) or "paused on request"
    await visit.manager.pause_batch(row.id, reason=reason, actor=visit.call.user_id)
    return f"/batches/{row.id}"


async def _resume(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await visit.manager.resume_batch(row.id, reason=_reason(form), actor=visit.call.user_id)
    await visit.manager.enqueue_batch(row.id)
    return f"/batches/{row.id}"


async def _cancel(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await visit.manager.cancel_batch(row.id, reason=_reason(form), actor=visit.call.user_id)
    return f"/batches/{row.id}"


async def _start(visit: Visit, row: ImportBatch, _form: FormData) -> str:
    await before_process(visit, row)
    visit.done(row, "started")
    await visit.call.store_log(row.id)
    await visit.manager.enqueue_batch(row.id)
    return f"/batches/{row.id}"


async def _reprocess(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await before_process(visit, row)
    started = await visit.manager.start_reprocessing(
        row.id,
        group=str(form.get("group", "")) or None,
        canary=_size(form),
        actor=visit.call.user_id,
    )
    child = started.batch_id
    if not started.is_new:
        return f"/batches/{child}?nothing=1"
    visit.done(row, "reprocess")
    await visit.call.store_log(child)
    if not (await visit.manager.get_batch(child)).status.settled:
        await visit.manager.enqueue_batch(child)
    return f"/batches/{child}"


async def before_process(visit: Visit, row: ImportBatch) -> None:
    """Ask the application's hook, which may refuse."""
    visit.manager.registry.get(row.batch_type)
    async with visit.call.hook():
        await answer(visit.call.endpoint(row.batch_type).before_process(row.id, visit.call.ctx))
    await visit.call.store_log(row.id)


async def dry_run(visit: Visit) -> Response:
    """Try every item, keep nothing, and show what would come of it."""
    await visit.form()
    row = await visit.call.batch("process")
    if row.status != BatchStatus.PENDING:
        raise Refused(409, "Only a batch that has not been started can be tried.")
    await before_process(visit, row)
    visit.done(row, "dry run")
    await visit.call.store_log(row.id)
    with anyio.move_on_after(DRY_RUN_SECONDS) as scope:
        found = await visit.manager.process_batch(row.id, dry_run=True)
    if scope.cancelled_caught:
        raise Refused(
            503,
            f"The dry run took longer than {DRY_RUN_SECONDS:.0f} s and was stopped. Start the "
            "import, or try a smaller file.",
        )
    return await render(visit, "dry_run.html", batch=row, result=found, may=await visit.may(row))


def _reason(form: FormData) -> str | None:
    return str(form.get("reason", "")).replace("\x00", "").strip()[:1000] or None


def _size(form: FormData) -> int | None:
    text = str(form.get("canary", "")).strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= 100_000:
        raise Refused(422, "A canary has between 1 and 100,000 items.")
    return int(text)


ACTIONS = {
    "start": Action(
        "process", "Start this import?", "Start the import",
        "Workers process its items. Items that already have an outcome are not run again.", _start,
    ),
    "pause": Action(
        "pause", "Pause this batch?", "Pause",
        "Running items finish; no further item starts.", _pause, takes_reason=True,
    ),
    "resume": Action(
        "resume", "Resume this batch?", "Resume",
        "Workers continue with its pending items.", _resume, takes_reason=True,
    ),
    "cancel": Action(
        "cancel", "Cancel this batch?", "Cancel the batch",
        "It ends for good. Imported records are kept. Items that have not started stay pending "
        "and can be reprocessed.", _cancel, takes_reason=True, dangerous=True,
    ),
    "reprocess": Action(
        "reprocess", "Reprocess failed items?", "Reprocess",
        "They run again in a new batch. Items that succeeded are never run again.", _reprocess,
    ),
}  # fmt: skip
