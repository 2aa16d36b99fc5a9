"""Actions on a batch: a page asks for confirmation, and its form performs the action."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.datastructures import FormData
from starlette.responses import Response

from ...models import BatchStatus, BatchSummary, FailureGroup, ImportBatch
from ..http import batch_actions
from .templating import render
from .visit import Refused, Visit, reason_in

DRY_RUN_SECONDS = 120.0
Do = Callable[[Visit, ImportBatch, FormData], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Action:
    """An action on a batch.

    Attributes:
        permission: The action that the application is asked about in `authorize`.
        title: The question.
        button: The label of the button that confirms it.
        text: What will happen.
        do: Performs the action, and returns the path of the next page.
        takes_reason: Whether the visitor may give a reason.
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
    """Ask for confirmation."""
    action = _action(visit)
    about = await about_failures(visit, action.permission)
    return await render(
        visit,
        "confirm.html",
        **about,
        name=visit.call.request.path_params["action"],
        action=action,
        canary=visit.given("canary") is not None,
        size=_canary_size(about["summary"], about["group"]),
    )


async def about_failures(visit: Visit, permission: str) -> dict[str, Any]:
    """The batch in the path and its summary, and the failure group in the query, for a page."""
    group = visit.given("group")
    async with visit.call.reading():
        row = await visit.call.batch(permission)
        summary = await visit.manager.batch_overview(row.id, causes=group is not None)
    return {"batch": row, "summary": summary, "group": group, "about": group_of(summary, group)}


def group_of(summary: BatchSummary, group: str | None) -> FailureGroup | None:
    """The failure group with this name."""
    return next((each for each in summary.groups if each.group == group), None)


async def act(visit: Visit) -> Response:
    """Perform the action."""
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
    named = group_of(summary, group)
    return max(1, min(100, (named.count if named else summary.outstanding_items) // 10))


async def _pause(visit: Visit, row: ImportBatch, form: FormData) -> str:
    reason = reason_in(form) or "paused on request"
    await visit.manager.pause_batch(row.id, reason=reason, actor=visit.call.user_id)
    return f"/batches/{row.id}"


async def _resume(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await visit.manager.resume_batch(row.id, reason=reason_in(form), actor=visit.call.user_id)
    await visit.manager.enqueue_batch(row.id)
    return f"/batches/{row.id}"


async def _cancel(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await visit.manager.cancel_batch(row.id, reason=reason_in(form), actor=visit.call.user_id)
    return f"/batches/{row.id}"


async def _start(visit: Visit, row: ImportBatch, _form: FormData) -> str:
    await batch_actions.before_process(visit.call, row)
    visit.done(row, "started")
    await visit.call.store_log(row.id)
    await visit.manager.enqueue_batch(row.id)
    return f"/batches/{row.id}"


async def _reprocess(visit: Visit, row: ImportBatch, form: FormData) -> str:
    await batch_actions.before_process(visit.call, row)
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


def _size(form: FormData) -> int | None:
    text = str(form.get("canary", "")).strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= 100_000:
        raise Refused(422, "The number of items to try must be between 1 and 100,000.")
    return int(text)


async def dry_run(visit: Visit) -> Response:
    """Try every item, roll everything back, and show the result."""
    await visit.form()
    row = await visit.call.batch("process")
    if row.status != BatchStatus.PENDING:
        raise Refused(409, "A dry run needs a batch that has not been started.")
    await batch_actions.before_process(visit.call, row)
    visit.done(row, "dry run")
    await visit.call.store_log(row.id)
    with anyio.move_on_after(DRY_RUN_SECONDS) as scope:
        result = await visit.manager.process_batch(row.id, dry_run=True)
    if scope.cancelled_caught:
        raise Refused(
            503,
            f"The dry run took longer than {DRY_RUN_SECONDS:.0f} s and was stopped. Start the "
            "import, or try a smaller file.",
        )
    return await render(visit, "dry_run.html", batch=row, result=result, may=await visit.may(row))


ACTIONS = {
    "start": Action(
        "process", "Start this import?", "Start the import",
        "Workers process its items. Items that already have an outcome do not run again.", _start,
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
        "The batch ends for good. Imported records are kept. Items that have not started stay "
        "pending and can be reprocessed.", _cancel, takes_reason=True, dangerous=True,
    ),
    "reprocess": Action(
        "reprocess", "Reprocess failed items?", "Reprocess",
        "Failed items run again in a new batch. Successful items never run again.", _reprocess,
    ),
}  # fmt: skip
