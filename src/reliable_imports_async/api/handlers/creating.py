"""New batches, from a JSON body or from an uploaded file."""

from typing import Any
from uuid import UUID

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...endpoints import BaseEndpoint
from ...models import ImportBatchItem
from ...processors import BaseProcessor
from ...readiness import with_data
from ...records import Limits, from_json
from ...sources import Source, read_file
from ..answers import path_of, summarised
from ..bodies import Creation, creation_body
from ..calls import Call, reply
from ..payloads import CreateBatch, Expected, Process, UploadQuery
from ..problems import InvalidRequest
from ..uploads import received
from .waiting import settled

MAX_ERRORS = 100
MAX_KEY = 255


async def create_batch(call: Call) -> Response:
    """Create a batch from a list of records, and process it unless asked not to."""
    creation = await creation_body(call.request)
    endpoint = await _permitted(call, creation.data.batch_type)
    touched = endpoint.overrides("before_create_batch")
    creation.data = await call.about_to_create(creation.data)
    _check(call, creation)
    source = creation.source(touched=touched)
    return await _created(call, endpoint, creation.data, source, "refuse")


async def upload_batch(call: Call) -> Response:
    """Create a batch from a file, and process it unless asked not to.

    Send the file itself as the body, or as the one file of a multipart form. Nothing is created
    unless all of it arrives.
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
    )
    data = await call.about_to_create(asked)
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
        return await _created(call, endpoint, data, source, query.on_same_file)


async def _permitted(call: Call, batch_type: str) -> BaseEndpoint:
    call.manager.registry.get(batch_type)
    endpoint = call.endpoint(batch_type)
    await call.require(endpoint, "create")
    return endpoint


async def _created(
    call: Call, endpoint: BaseEndpoint, data: CreateBatch, source: Source, on_same_file: Any
) -> Response:
    batch_id = await call.manager.create_batch(
        data.batch_type,
        source,
        metadata=data.metadata,
        created_by=call.user_id,
        idempotency_key=_idempotency_key(call),
        on_same_file=on_same_file,
        enqueue=bool(data.process),
        max_failures=data.max_failures,
        max_failure_rate=data.max_failure_rate,
        min_processed=data.min_processed,
        skip_unchanged=data.skip_unchanged,
        expect=None if data.expect is None else data.expect.model_dump(),
        after_create=call.after_create(endpoint, data),
    )
    await call.created(endpoint, batch_id, data)
    return await _answer(call, batch_id, data.process)


async def _answer(call: Call, batch_id: UUID, process: Process) -> Response:
    if process == "wait":
        summary = await settled(call, batch_id)
    else:
        summary = await call.manager.get_batch_summary(batch_id)
    accepted = bool(process) and not summary.status.settled
    body = summarised(call, summary)
    return reply(body, 202 if accepted else 201, Location=path_of(call, batch_id))


def _idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise HTTPException(400, f"An Idempotency-Key has 1 to {MAX_KEY} characters.")
    return key


def _check(call: Call, creation: Creation) -> None:
    """Refuse too many items, and with `strict` invalid ones."""
    items = creation.data.items or []
    if len(items) > call.service.settings.max_batch_items:
        limit = call.service.settings.max_batch_items
        raise HTTPException(
            413, f"{len(items)} items; a request may hold {limit}. Upload a file instead."
        )
    if creation.data.strict and (errors := _invalid(call, creation)):
        places = ", ".join(".".join(map(str, one["location"])) for one in errors[:3])
        raise InvalidRequest(f"Items are invalid at {places}.", errors)


def _invalid(call: Call, creation: Creation) -> list[dict[str, Any]]:
    settings = call.service.settings
    limits = Limits(settings.max_record_bytes, settings.max_record_depth)
    processor = call.manager.registry.get(creation.data.batch_type)
    errors: list[dict[str, Any]] = []
    for index, text in enumerate(creation.texts or []):
        where: list[str | int] = ["body", "items", index]
        reason = from_json(text, line=None, limits=limits).reason
        if reason is not None:
            errors.append({"location": where, "message": reason, "type": "unreadable"})
        else:
            errors += _model_errors(processor, (creation.data.items or [])[index], where)
        if len(errors) >= MAX_ERRORS:
            break
    return errors


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
