"""Creating batches, from a JSON body or an uploaded file."""

from functools import partial
from typing import Any
from uuid import UUID

import anyio.lowlevel
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ....errors import IdempotencyConflict
from ....exact_json import aside
from ....execution.prepare import with_data
from ....loading.create import Created, OnSameFile
from ....loading.records import Limits
from ....loading.sources import Source
from ....models import BatchStatus, ImportBatch, ImportBatchItem
from ....processors.processor import BaseProcessor
from ...endpoints import BaseEndpoint
from ...http import batch_actions
from ...http.bodies import Creation, creation_body
from ...http.call import Call, reply
from ...http.payloads import CreateBatch, Expected, Process, UploadQuery
from ...http.problems import InvalidRequest, places_of
from ...http.uploads import uploaded_source
from ..answers import path_of, summarised

MAX_ERRORS = 100
CHECKED_AT_ONCE = 100  # then other tasks may run
MAX_KEY = 255


async def create_batch(call: Call) -> Response:
    """Create a batch from a list of records, and process it unless `process` is false."""
    settings = call.service.settings
    limits = Limits(settings.max_record_bytes, settings.max_record_depth)
    creation = await creation_body(call.request, limits, settings.max_batch_items)
    endpoint = await batch_actions.permitted_endpoint(call, creation.data.batch_type)
    digest = creation.sha256() if _idempotency_key(call) is not None else None
    if (replayed := await _replayed(call, creation.data, digest)) is not None:
        return replayed
    touched = endpoint.overrides("before_create_batch")
    if touched or creation.data.strict or endpoint.overrides("after_create_batch"):
        await creation.read_items()
    data = creation.data = await batch_actions.before_create(call, creation.data)
    if data.strict:
        await _refuse_invalid(call, creation)
    source = await creation.source(touched=touched)
    return await _create(call, endpoint, data, source, request_sha256=digest)


async def upload_batch(call: Call) -> Response:
    """Create a batch from a file, and process it unless `process` is false.

    Send the file as the body, or as the only file of a multipart form. A batch is created only if
    the whole file arrives. With an `Idempotency-Key`, a repeated request gets the batch of the
    first one, whatever `on_same_file` is.
    """
    query = call.query(UploadQuery)
    endpoint = await batch_actions.permitted_endpoint(call, query.batch_type)
    data = _requested(query)
    if await _batch_of_key(call) is None:  # otherwise the hook has run, and the content decides
        data = await batch_actions.before_create(call, data)
    async with uploaded_source(call, query) as source:
        return await _create(call, endpoint, data, source, on_same_file=query.on_same_file)


def _requested(query: UploadQuery) -> CreateBatch:
    return CreateBatch(
        batch_type=query.batch_type,
        process=False if query.process == "false" else query.process,
        max_failures=query.max_failures,
        max_failure_rate=query.max_failure_rate,
        min_processed=query.min_processed,
        skip_unchanged=None if query.skip_unchanged is None else False,
        expect=None if query.expect_count is None else Expected(count=query.expect_count),
        allow_empty=query.allow_empty,
    )


async def _batch_of_key(call: Call) -> ImportBatch | None:
    key = _idempotency_key(call)
    return None if key is None else await call.manager.find_replayed(call.user_id, key)


def _idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise HTTPException(400, f"An Idempotency-Key has 1 to {MAX_KEY} ASCII characters.")
    return key


async def _replayed(call: Call, data: CreateBatch, digest: str | None) -> Response | None:
    """Answer a request that was sent before with the same key, without running any hook.

    The requests are compared, not the stored batches, since hooks may have changed what is stored.
    """
    batch = await _batch_of_key(call)
    kept = None if batch is None else batch.options.get("request_sha256")
    if batch is None or kept is None:
        return None
    if kept != digest or batch.batch_type != data.batch_type:
        raise IdempotencyConflict(_idempotency_key(call) or "", batch.id)
    return await _answer(call, Created(batch.id, replayed=True), data.process)


async def _create(
    call: Call,
    endpoint: BaseEndpoint,
    data: CreateBatch,
    source: Source,
    *,
    on_same_file: OnSameFile = "refuse",
    request_sha256: str | None = None,
) -> Response:
    created = await batch_actions.create(
        call,
        endpoint,
        data,
        source,
        enqueue=bool(data.process),
        on_same_file=on_same_file,
        idempotency_key=_idempotency_key(call),
        request_sha256=request_sha256,
    )
    if not created.replayed:
        await batch_actions.after_create(call, endpoint, created.batch_id, data)
    process = data.process
    if process and (created.replayed or on_same_file == "skip"):
        process = process if await _is_started(call, created) else False
    return await _answer(call, created, process)


async def _is_started(call: Call, created: Created) -> bool:
    """Whether an earlier batch is enqueued, or running, or was just enqueued for this caller."""
    batch = await call.manager.get_batch(created.batch_id)
    enqueued = (await call.manager.source_details(batch.id)).enqueued_at
    if batch.status is not BatchStatus.PENDING or enqueued is not None:
        return True
    if created.replayed or not await call.may("process", batch):
        return False
    await call.manager.enqueue_batch(batch.id)
    return True


async def _answer(call: Call, created: Created, process: Process) -> Response:
    summary = await batch_actions.summary_after(call, created.batch_id, process)
    body = summarised(call, summary) | {"replayed": created.replayed}
    headers = {"Location": path_of(call, created.batch_id)}
    if created.replayed:
        headers["Idempotency_Replayed"] = "true"
    return reply(body, batch_actions.status_code(summary, process, done=201), **headers)


async def _refuse_invalid(call: Call, creation: Creation) -> None:
    """Refuse the batch if an item is invalid, for `strict`."""
    if creation.data.items is None:
        await creation.read_items()
    processor = call.manager.registry.get(creation.data.batch_type)
    errors: list[dict[str, Any]] = []
    for index, record in enumerate(creation.records):
        where: list[str | int] = ["body", "items", index]
        if record.reason is not None:
            errors.append({"location": where, "message": record.reason, "type": "unreadable"})
        else:
            item = (creation.data.items or [])[index]
            errors += await aside(
                len(record.text or b""), partial(_model_errors, processor, item, where)
            )
        if len(errors) >= MAX_ERRORS:
            break
        if index % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
    if errors:
        raise InvalidRequest(f"Items are invalid at {places_of(errors)}.", errors)


def _model_errors(
    processor: BaseProcessor[Any], record: dict[str, Any], where: list[str | int]
) -> list[dict[str, Any]]:
    item: ImportBatchItem[Any] = ImportBatchItem(
        batch_id=UUID(int=0), item_number=1, source_data=record
    )
    try:
        with_data(processor, item)
    except ValidationError as exc:
        return [dict(each) for each in InvalidRequest.of(exc, *where).errors]
    except Exception as exc:  # noqa: BLE001 - a model's own code may raise anything
        return [{"location": where, "message": str(exc), "type": type(exc).__name__}]
    return []
