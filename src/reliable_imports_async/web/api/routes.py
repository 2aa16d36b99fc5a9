"""The route table: what the router serves, and what the OpenAPI document describes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.responses import Response

from ..http.call import Call
from ..http.payloads import (
    BatchQuery,
    CorrectionQuery,
    CreateBatch,
    EditItem,
    EventQuery,
    ExportQuery,
    FailuresQuery,
    ItemQuery,
    LogQuery,
    ProcessBatch,
    Reason,
    ReprocessBatch,
    UploadQuery,
)
from ..http.responses import (
    BatchAnswer,
    BatchPage,
    BatchTypes,
    CorrectedAnswer,
    DetailedBatchAnswer,
    EditsAnswer,
    FailuresAnswer,
    HealthAnswer,
    ItemAnswer,
    ItemPage,
    LogPage,
    ProcessedAnswer,
    ReprocessAnswer,
    Ticket,
)
from .handlers import actions, create, events, read, repair, server

Handler = Callable[[Call], Awaitable[Response]]
Answers = Mapping[int, type[BaseModel] | None]

BATCH = "/api/batches/{batch_id:uuid}"
ITEM = f"{BATCH}/items/{{item_number:number}}"

CSV, JSON_LINES, EVENTS, TEXT, HTML = (
    "text/csv",
    "application/x-ndjson",
    "text/event-stream",
    "text/plain",
    "text/html",
)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API.

    Attributes:
        method: GET, POST, PATCH or DELETE.
        path: In Starlette's notation: ``/api/batches/{batch_id:uuid}``.
        handler: Its name is the operation's id, its docstring the description.
        tag: The heading of the operation in the document.
        answers: The model of each successful response, by status; None for other content.
        query: The model of the query.
        body: The model of the JSON body.
        takes_file: Whether the body is a file.
        media_type: The media type of the response.
        refusals: Further statuses of refusals; see `problems`.
        public: Whether the operation needs no authentication.
        hidden: Whether the document leaves it out.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    answers: Answers = field(default_factory=dict)
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes_file: bool = False
    media_type: str = "application/json"
    refusals: tuple[int, ...] = ()
    public: bool = False
    hidden: bool = False

    @property
    def problems(self) -> frozenset[int]:
        """The statuses of its refusals, beside 401 and 503."""
        statuses = set(self.refusals)
        if self.body or self.takes_file:
            statuses |= {400, 409, 413, 415, 422}
        if self.query:
            statuses.add(422)
        if "{batch_id" in self.path:
            statuses.add(404)
        return frozenset(statuses)


class NumberConvertor(IntegerConvertor):
    """A number in a path, of at most 18 digits; int() refuses very long ones."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", NumberConvertor())


def _action(name: str, handler: Handler, body: type[BaseModel], answers: Answers) -> Operation:
    """An operation that changes a batch."""
    return Operation("POST", f"{BATCH}/{name}", handler, "actions", answers, body=body)


def _hidden(path: str, handler: Handler, media_type: str = HTML) -> Operation:
    """An operation for people, which the document leaves out."""
    return Operation(
        "GET", path, handler, "server", media_type=media_type, public=True, hidden=True
    )


CREATED: Answers = {201: BatchAnswer, 202: BatchAnswer}
CORRECTED: Answers = {200: CorrectedAnswer, 202: CorrectedAnswer}
REPROCESSED: Answers = {200: ReprocessAnswer, 202: ReprocessAnswer}
HEALTH: Answers = {200: HealthAnswer, 503: HealthAnswer}
CONTENT: Answers = {200: None}
NO_CONTENT: Answers = {204: None}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/api/batches", create.create_batch, "batches", CREATED, body=CreateBatch
    ),
    Operation(
        "POST", "/api/batches/upload", create.upload_batch, "batches", CREATED,
        query=UploadQuery, takes_file=True,
    ),
    Operation(
        "GET", "/api/batches", read.list_batches, "batches", {200: BatchPage, 304: None},
        query=BatchQuery,
    ),
    Operation("GET", BATCH, read.get_batch, "batches", {200: DetailedBatchAnswer, 304: None}),
    _action(
        "process", actions.process_batch, ProcessBatch, {200: ProcessedAnswer, 202: BatchAnswer}
    ),
    _action("reprocess", actions.reprocess_batch, ReprocessBatch, REPROCESSED),
    Operation(
        "POST", f"{BATCH}/reprocess/upload", repair.reprocess_file, "actions", CORRECTED,
        query=CorrectionQuery, takes_file=True,
    ),
    _action("pause", actions.pause_batch, Reason, {200: BatchAnswer}),
    _action("resume", actions.resume_batch, Reason, {200: BatchAnswer}),
    _action("cancel", actions.cancel_batch, Reason, {200: BatchAnswer}),
    Operation("GET", f"{BATCH}/items", read.list_items, "items", {200: ItemPage}, query=ItemQuery),
    Operation("GET", ITEM, read.get_item, "items", {200: ItemAnswer}),
    Operation("PATCH", ITEM, repair.edit_item, "items", {200: ItemAnswer}, body=EditItem),
    Operation("GET", f"{ITEM}/edits", repair.list_edits, "items", {200: EditsAnswer}),
    Operation(
        "GET", f"{BATCH}/failures", repair.list_failures, "items", {200: FailuresAnswer},
        query=FailuresQuery,
    ),
    Operation("GET", f"{BATCH}/logs", read.list_logs, "items", {200: LogPage}, query=LogQuery),
    Operation(
        "GET", f"{BATCH}/failures.csv", events.export_csv, "items", CONTENT,
        query=ExportQuery, media_type=CSV,
    ),
    Operation(
        "GET", f"{BATCH}/failures.jsonl", events.export_jsonl, "items", CONTENT,
        query=ExportQuery, media_type=JSON_LINES,
    ),
    Operation(
        "GET", f"{BATCH}/events", events.stream_events, "progress", CONTENT,
        query=EventQuery, media_type=EVENTS, refusals=(429,),
    ),
    Operation("POST", f"{BATCH}/events/ticket", events.create_ticket, "progress", {201: Ticket}),
    Operation(
        "POST", "/api/session", events.create_session, "progress", NO_CONTENT, refusals=(409,)
    ),
    Operation(
        "DELETE", "/api/session", events.delete_session, "progress", NO_CONTENT, public=True
    ),
    Operation("GET", "/api/batch-types", read.list_batch_types, "server", {200: BatchTypes}),
    _hidden("/", server.get_start),
    Operation("GET", "/health", server.get_health, "server", HEALTH, public=True),
    Operation("GET", "/metrics", server.get_metrics, "server", CONTENT, media_type=TEXT),
    _hidden("/openapi.json", server.get_document, "application/json"),
    _hidden("/docs", server.get_docs),
    _hidden("/docs/{name}", server.get_docs_file),
)  # fmt: skip
