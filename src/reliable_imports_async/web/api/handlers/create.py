"""New batches, from a JSON body or from an uploaded file."""

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
from ....loading.sources import Source, read_file
from ....models import BatchStatus, ImportBatch, ImportBatchItem
from ....processors.processor import BaseProcessor
from ...endpoints import BaseEndpoint
from ...http.batch_actions import settled
from ...http.bodies import Creation, creation_body
from ...http.call import Call, reply
from ...http.payloads import CreateBatch, Expected, Process, UploadQuery
from ...http.problems import InvalidRequest
from ...http.uploads import received
from ..answers import path_of, summarised

MAX_ERRORS = 100
CHECKED_AT_ONCE = 100  # then everything else that waits has its turn
MAX_KEY = 255


async def create_batch(call: Call) -> Response:
    """Create a batch from a list of records, and process it unless asked not to."""
    settings = call.service.settings
    limits = Limits(settings.max_record_bytes, settings.max_record_depth)
    creation = await creation_body(call.request, limits, settings.max_batch_items)
    endpoint = await _permitted(call, creation.data.batch_type)
    digest = creation.sha256() if _idempotency_key(call) is not None else None
    if (replayed := await _replayed(call, creation.data, digest)) is not None:
        return replayed
    touched = endpoint.overrides("before_create_batch")
    if touched or creation.data.strict or endpoint.overrides("after_create_batch"):
        await creation.read_items()
    creation.data = await call.about_to_create(creation.data)
    if creation.data.strict:
        await _refuse_invalid(call, creation)
    source = await creation.source(touched=touched)
    return await _created(call, endpoint, creation.data, source, request_sha256=digest)


async def upload_batch(call: Call) -> Response:
    """Create a batch from a file, and process it unless asked not to.

    Send the file itself as the body, or as the one file of a multipart form. Nothing is created
    unless all of it arrives. With an `Idempotency-Key` a request that is repeated gets its batch,
    whatever `on_same_file` says.
    """
    query = call.query(UploadQuery)
    endpoint = await _permitted(call, query.batch_type)
    process: Process = False if query.process == "false" else query.process
    asked = CreateBatch(
        batch_type=query.batch_type,
        process=process,
        max_failures=query.max_failures,
        max_failure_rate=query.max_failure_rate,
        min_processed=query.min_processed,
        skip_unchanged=None if query.skip_unchanged is None else False,
        expect=None if query.expect_count is None else Expected(count=query.expect_count),
        allow_empty=query.allow_empty,
    )
    known = await _batch_of_key(call)  # then its content decides, and hooks have run
    data = asked if known is not None else await call.about_to_create(asked)
    async with received(call.request) as (file, name):
        settings = call.service.settings
        source = read_file(
            file,
            name=query.name or name,
            format=query.format,
            delimiter=query.delimiter,
            encoding=query.encoding,
            max_ratio=settings.max_upload_ratio,
        )
        return await _created(call, endpoint, data, source, on_same_file=query.on_same_file)


async def _permitted(call: Call, batch_type: str) -> BaseEndpoint:
    call.manager.registry.get(batch_type)
    endpoint = call.endpoint(batch_type)
    await call.require(endpoint, "create")
    return endpoint


async def _batch_of_key(call: Call) -> ImportBatch | None:
    key = _idempotency_key(call)
    return None if key is None else await call.manager.find_replayed(call.user_id, key)


async def _replayed(call: Call, data: CreateBatch, digest: str | None) -> Response | None:
    """The answer to a request that came before under its key, without any hook.

    Hooks may have changed what is stored, so it is the requests that are compared.
    """
    batch = await _batch_of_key(call)
    kept = None if batch is None else batch.options.get("request_sha256")
    if batch is None or kept is None:
        return None
    if kept != digest or batch.batch_type != data.batch_type:
        raise IdempotencyConflict(_idempotency_key(call) or "", batch.id)
    return await _answer(call, Created(batch.id, replayed=True), data.process)


async def _created(
    call: Call,
    endpoint: BaseEndpoint,
    data: CreateBatch,
    source: Source,
    *,
    on_same_file: OnSameFile = "refuse",
    request_sha256: str | None = None,
) -> Response:
    created = await call.manager.create_or_find_batch(
        data.batch_type,
        source,
        metadata=data.metadata,
        created_by=call.user_id,
        idempotency_key=_idempotency_key(call),
        on_same_file=on_same_file,
        visible=await call.visible(),
        request_sha256=request_sha256,
        enqueue=bool(data.process),
        max_failures=data.max_failures,
        max_failure_rate=data.max_failure_rate,
        min_processed=data.min_processed,
        skip_unchanged=data.skip_unchanged,
        expect=None if data.expect is None else data.expect.model_dump(),
        allow_empty=data.allow_empty,
        after_create=call.after_create(endpoint, data),
    )
    if not created.replayed:
        await call.created(endpoint, created.batch_id, data)
    process = data.process
    if process and (created.replayed or on_same_file == "skip"):
        process = process if await _is_started(call, created) else False
    return await _answer(call, created, process)


async def _is_started(call: Call, created: Created) -> bool:
    """Whether a batch is on its way; one that was only stored is started by who may process it."""
    batch = await call.manager.get_batch(created.batch_id)
    enqueued = (await call.manager.source_details(batch.id)).enqueued_at
    if batch.status is not BatchStatus.PENDING or enqueued is not None:
        return True
    if created.replayed or not await call.may("process", batch):
        return False
    await call.manager.enqueue_batch(batch.id)
    return True


async def _answer(call: Call, created: Created, process: Process) -> Response:
    batch_id = created.batch_id
    if process == "wait":
        summary = await settled(call, batch_id)
    else:
        summary = await call.manager.get_batch_summary(batch_id)
    accepted = bool(process) and not summary.status.settled
    body = summarised(call, summary) | {"replayed": created.replayed}
    headers = {"Location": path_of(call, batch_id)}
    if created.replayed:
        headers["Idempotency_Replayed"] = "true"
    return reply(body, 202 if accepted else 201, **headers)


def _idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise HTTPException(400, f"An Idempotency-Key has 1 to {MAX_KEY} ASCII characters.")
    return key


async def _refuse_invalid(call: Call, creation: Creation) -> None:
    """What `strict` asks for: refuse the batch when an item is invalid."""
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
        places = ", ".join(".".join(map(str, one["location"])) for one in errors[:3])
        raise InvalidRequest(f"Items are invalid at {places}.", errors)


def _model_errors(
    processor: BaseProcessor[Any], record: dict[str, Any], where: list[str | int]
) -> list[dict[str, Any]]:
    item: ImportBatchItem[Any] = ImportBatchItem(
        batch_id=UUID(int=0), item_number=1, source_data=record
    )
    try:
        with_data(processor, item)
    except ValidationError as exc:
        return [dict(one) for one in InvalidRequest.of(exc, *where).errors]
    except Exception as exc:  # noqa: BLE001 - a model's own code may raise anything
        return [{"location": where, "message": str(exc), "type": type(exc).__name__}]
    return []
