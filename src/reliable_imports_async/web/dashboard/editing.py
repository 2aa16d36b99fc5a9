"""Editing the record of a failed item, and retrying it."""

from functools import partial
from typing import Any

from anyio import to_thread
from starlette.datastructures import FormData
from starlette.responses import Response

from ... import exact_json
from ...errors import EditNotAccepted, EditRefused
from ...models import ImportBatchItem, ItemStatus
from ..http import batch_actions
from .filters import has_invisible, json_text
from .record_fields import in_order, wrong_in
from .templating import render
from .visit import Refused, Visit, reason_in

MOST_FIELDS, LONGEST_FIELD, LONGEST_RECORD = 100, 10_000, 4_000_000


async def edit_page(visit: Visit) -> Response:
    """Show the record in a form."""
    return await _form(visit, None, None)


async def edit(visit: Visit) -> Response:
    """Save the new record, and retry the item if asked to."""
    form = await visit.form()
    row = await visit.call.batch("edit")
    if "retry" in form:
        await visit.call.permit(row, "reprocess")
    item = await _item(visit)
    text = str(form.get("record", ""))
    try:
        record = _record(form, in_order(item.source_data, row.source_columns))
        await visit.manager.update_item_source(
            row.id,
            item.item_number,
            record,
            reason=reason_in(form),
            actor=visit.call.user_id,
            force="force" in form,
        )
    except ValueError as exc:
        return await _form(visit, text, f"The record is not valid JSON: {exc}")
    except EditNotAccepted as exc:
        typed = text if "record" in form else None
        return await _form(visit, typed, exc.message, refused=record)
    except EditRefused as exc:
        return await _form(visit, text, exc.message)
    visit.call.ctx.info("dashboard: record edited", actor=visit.call.user_id, item=item.item_number)
    await visit.call.store_log(row.id)
    if "retry" not in form:
        return visit.to(f"/batches/{row.id}/items/{item.item_number}")
    await batch_actions.before_process(visit.call, row)
    child = await visit.manager.create_reprocessing(
        row.id, item_numbers=[item.item_number], actor=visit.call.user_id
    )
    await visit.manager.enqueue_batch(child)
    return visit.to(f"/batches/{child}")


async def _form(
    visit: Visit, text: str | None, error: str | None, *, refused: Any = None
) -> Response:
    """Show the form; with a refused record, which can then be saved anyway."""
    row = await visit.call.batch("edit")
    item = await _item(visit)
    if item.status != ItemStatus.FAILED or item.reprocessed_by is not None:
        raise Refused(409, "Only failed items that are not being reprocessed can be edited.")
    record = in_order(item.source_data if refused is None else refused, row.source_columns)
    by_field = text is None and await to_thread.run_sync(_as_fields, record)
    return await render(
        visit,
        "edit.html",
        code=200 if error is None else 422,
        batch=row,
        item=item,
        by_field=by_field,
        fields=record if by_field else {},
        may=await visit.may(row),
        record=text if text is not None else partial(json_text, record or {}),
        wrong=partial(wrong_in, item),
        error=error,
        refused=refused is not None,
    )


async def _item(visit: Visit) -> ImportBatchItem[Any]:
    return await visit.manager.get_item(visit.call.batch_id, visit.call.item_number)


def _as_fields(record: Any) -> bool:
    """Whether a form can show the record unchanged, with a text input for each field."""
    return (
        isinstance(record, dict)
        and 0 < len(record) <= MOST_FIELDS
        and all(isinstance(text, str) and len(text) <= LONGEST_FIELD for text in record.values())
        and not any(has_invisible(text) for text in (*record, *record.values()))
    )


def _record(form: FormData, old_record: Any) -> dict[str, Any]:
    """The new record: typed as JSON, or the old record with its changed fields."""
    if "record" in form:
        record = exact_json.read_unchecked(str(form["record"]))
        if not isinstance(record, dict):
            raise ValueError("a record is an object")
        return record
    record = dict(old_record or {})
    for position, (name, old) in enumerate(list(record.items())):
        given = str(form.get(f"field-{position}", old)).replace("\r\n", "\n")
        if given != str(old).replace("\r\n", "\n"):  # browsers send all line ends as CR LF
            record[name] = given
    return record
