"""The route table: what the router serves and what the API document describes, in one place."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.responses import Response

from ..http import payloads
from ..http.call import Call
from .handlers import actions, create, events, read, repair, server

Handler = Callable[[Call], Awaitable[Response]]

CSV, JSON_LINES, EVENTS, TEXT, HTML = (
    "text/csv",
    "application/x-ndjson",
    "text/event-stream",
    "text/plain",
    "text/html",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that a client can do.

    Attributes:
        method: GET, POST, PATCH, DELETE.
        path: As Starlette writes it: ``/api/batches/{batch_id:uuid}``.
        handler: Its name is the operation's id, its docstring the description.
        tag: The heading under which the page shows it.
        query: The names it takes after the question mark.
        body: The JSON it takes.
        takes_file: Whether the body is a file.
        answers: The model of each successful answer, by status; None has no JSON body.
        media_type: Of an answer that is no JSON.
        problems: The statuses of its refusals, beside those that every operation has.
        public: Whether it is for everybody, where others need a key.
        hidden: Whether the document leaves it out.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes_file: bool = False
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=dict)
    media_type: str = "application/json"
    problems: tuple[int, ...] = ()
    public: bool = False
    hidden: bool = False


class NumberConvertor(IntegerConvertor):
    """A number in a path that is not longer than any number here; int() refuses long ones."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", NumberConvertor())

BATCH = "/api/batches/{batch_id:uuid}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/batches",
        handler=create.create_batch,
        tag="batches",
        body=payloads.CreateBatch,
        answers={201: payloads.BatchAnswer, 202: payloads.BatchAnswer},
        problems=(400, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path="/api/batches/upload",
        handler=create.upload_batch,
        tag="batches",
        query=payloads.UploadQuery,
        takes_file=True,
        answers={201: payloads.BatchAnswer, 202: payloads.BatchAnswer},
        problems=(400, 409, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path="/api/batches",
        handler=read.list_batches,
        tag="batches",
        query=payloads.BatchQuery,
        answers={200: payloads.BatchPage},
        problems=(422,),
    ),
    Operation(
        method="GET",
        path=BATCH,
        handler=read.get_batch,
        tag="batches",
        answers={200: payloads.DetailedBatchAnswer},
        problems=(404,),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/process",
        handler=actions.process_batch,
        tag="actions",
        body=payloads.ProcessBatch,
        answers={200: payloads.ProcessedAnswer, 202: payloads.BatchAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/reprocess",
        handler=actions.reprocess_batch,
        tag="actions",
        body=payloads.ReprocessBatch,
        answers={200: payloads.ReprocessAnswer, 202: payloads.ReprocessAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/reprocess/upload",
        handler=repair.reprocess_file,
        tag="actions",
        query=payloads.CorrectionQuery,
        takes_file=True,
        answers={200: payloads.CorrectedAnswer, 202: payloads.CorrectedAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/pause",
        handler=actions.pause_batch,
        tag="actions",
        body=payloads.Reason,
        answers={200: payloads.BatchAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/resume",
        handler=actions.resume_batch,
        tag="actions",
        body=payloads.Reason,
        answers={200: payloads.BatchAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/cancel",
        handler=actions.cancel_batch,
        tag="actions",
        body=payloads.Reason,
        answers={200: payloads.BatchAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/items",
        handler=read.list_items,
        tag="items",
        query=payloads.ItemQuery,
        answers={200: payloads.ItemPage},
        problems=(404, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/items/{{item_number:number}}",
        handler=read.get_item,
        tag="items",
        answers={200: payloads.ItemAnswer},
        problems=(404,),
    ),
    Operation(
        method="PATCH",
        path=f"{BATCH}/items/{{item_number:number}}",
        handler=repair.edit_item,
        tag="items",
        body=payloads.EditItem,
        answers={200: payloads.ItemAnswer},
        problems=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/items/{{item_number:number}}/edits",
        handler=repair.list_edits,
        tag="items",
        answers={200: payloads.EditsAnswer},
        problems=(404,),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/failures",
        handler=repair.list_failures,
        tag="items",
        query=payloads.FailuresQuery,
        answers={200: payloads.FailuresAnswer},
        problems=(404, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/logs",
        handler=read.list_logs,
        tag="items",
        query=payloads.LogQuery,
        answers={200: payloads.LogPage},
        problems=(404, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/failures.csv",
        handler=events.export_csv,
        tag="items",
        query=payloads.ExportQuery,
        answers={200: None},
        media_type=CSV,
        problems=(404, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/failures.jsonl",
        handler=events.export_jsonl,
        tag="items",
        query=payloads.ExportQuery,
        answers={200: None},
        media_type=JSON_LINES,
        problems=(404, 422),
    ),
    Operation(
        method="GET",
        path=f"{BATCH}/events",
        handler=events.stream_events,
        tag="progress",
        query=payloads.EventQuery,
        answers={200: None},
        media_type=EVENTS,
        problems=(404, 422, 429),
    ),
    Operation(
        method="POST",
        path=f"{BATCH}/events/ticket",
        handler=events.create_ticket,
        tag="progress",
        answers={201: payloads.Ticket},
        problems=(404,),
    ),
    Operation(
        method="POST",
        path="/api/session",
        handler=events.create_session,
        tag="progress",
        answers={204: None},
        problems=(409,),
    ),
    Operation(
        method="DELETE",
        path="/api/session",
        handler=events.delete_session,
        tag="progress",
        answers={204: None},
        public=True,
    ),
    Operation(
        method="GET",
        path="/api/batch-types",
        handler=read.list_batch_types,
        tag="server",
        answers={200: payloads.BatchTypes},
    ),
    Operation(
        method="GET",
        path="/",
        handler=server.get_start,
        tag="server",
        media_type=HTML,
        public=True,
        hidden=True,
    ),
    Operation(
        method="GET",
        path="/health",
        handler=server.get_health,
        tag="server",
        answers={200: payloads.HealthAnswer, 503: payloads.HealthAnswer},
        public=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=server.get_metrics,
        tag="server",
        answers={200: None},
        media_type=TEXT,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        handler=server.get_document,
        tag="server",
        public=True,
        hidden=True,
    ),
    Operation(
        method="GET",
        path="/docs",
        handler=server.get_docs,
        tag="server",
        media_type=HTML,
        public=True,
        hidden=True,
    ),
    Operation(
        method="GET",
        path="/docs/{name}",
        handler=server.get_docs_file,
        tag="server",
        media_type=HTML,
        public=True,
        hidden=True,
    ),
)
