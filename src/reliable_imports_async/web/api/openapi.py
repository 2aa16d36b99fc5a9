"""The OpenAPI 3.1 document, made from the route table and the registered processors."""

import inspect
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal

from openapi_pydantic import OpenAPI
from pydantic import BaseModel, TypeAdapter

from ...processors.registry import Registry
from ..http.payloads import LARGEST_NUMBER, CreateBatch
from ..http.responses import Problem
from .routes import OPERATIONS, Operation

JSON, PROBLEM = "application/json", "application/problem+json"
REF = "#/components/schemas/{model}"
PATH_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "batch_id": {"type": "string", "format": "uuid"},
    "item_number": {"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER},
}
TAGS = {
    "batches": "Create batches, and see their state.",
    "actions": "Process, reprocess, pause, resume and cancel batches.",
    "items": "Items, their outcomes and log lines, and the files of failures.",
    "progress": "Follow a batch while it runs.",
    "server": "The server itself.",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeated request with the same key returns the same batch, even if the file "
    "was imported before; the response then has the header `Idempotency-Replayed: true`. A "
    "different request with the same key is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an earlier response. If nothing but the clock has changed since, "
    "the response is 304 without a body.",
    "schema": {"type": "string", "maxLength": 1_000},
}
ETAG = {"ETag": {"description": "For `If-None-Match`.", "schema": {"type": "string"}}}
HEADERS: Mapping[str, list[dict[str, Any]]] = {
    "list_batches": [IF_NONE_MATCH],
    "get_batch": [IF_NONE_MATCH],
    "create_batch": [IDEMPOTENCY_KEY],
    "upload_batch": [IDEMPOTENCY_KEY],
    "stream_events": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Sent by browsers when they reconnect.",
            "schema": {"type": "string", "maxLength": 100},
        }
    ],
}
PROBLEMS = {
    400: "The request is malformed.",
    401: "Authentication is required.",
    404: "Not found, or you are not allowed to see it.",
    409: "Conflict with the batch's status, or with a file that was imported before.",
    413: "The request is too large.",
    415: "The media type is not supported.",
    422: "The request does not match its description.",
    429: "Too many clients at once.",
    503: "The database does not answer. Try again.",
}
FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}
# The schema of an event stream describes a single event.
CONTENTS = {
    "text/event-stream": {"description": "Events with an `id`, an `event` and JSON `data`."}
}

Mode = Literal["validation", "serialization"]


def document(registry: Registry, base: str, *, secured: bool) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        registry: The processors; their models describe the items.
        base: The path prefix below which the API is mounted.
        secured: Whether the API needs authentication.
    """
    schemas = _Schemas(registry)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        if not operation.hidden:
            described = _operation(operation, schemas, registry, secured=secured)
            path = re.sub(r":\w+}", "}", operation.path)
            paths.setdefault(path, {})[operation.method.lower()] = described
    components: dict[str, Any] = {"schemas": schemas.definitions}
    if secured:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    draft = {
        "openapi": "3.1.1",
        "info": {
            "title": "Import API",
            "version": metadata.version("reliable-imports-async"),
            "description": "Imports records into PostgreSQL, each exactly once.",
        },
        "servers": [{"url": base or "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": components,
    }
    checked = OpenAPI.model_validate(draft)
    plain: dict[str, Any] = checked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return plain


class _Schemas:
    """The JSON schemas of all requests and responses, and of the processors' models."""

    def __init__(self, registry: Registry) -> None:
        inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = []
        taken: list[type[BaseModel]] = []
        given: list[type[BaseModel]] = [Problem]
        for operation in OPERATIONS:
            taken += [model for model in (operation.query, operation.body) if model is not None]
            given += [model for model in operation.answers.values() if model is not None]
        inputs += [(model.__name__, "validation", TypeAdapter(model)) for model in taken]
        inputs += [(model.__name__, "serialization", TypeAdapter(model)) for model in given]
        records = [(name, registry.get(name).model()) for name in registry.batch_types]
        inputs += [(f"item:{name}", "validation", model) for name, model in records if model]
        unique = {(name, mode): (name, mode, adapter) for name, mode, adapter in inputs}
        by_name, shared = TypeAdapter.json_schemas(list(unique.values()), ref_template=REF)
        self.definitions: dict[str, Any] = dict(shared.get("$defs", {}))
        self._schemas = {name: schema for (name, _), schema in by_name.items()}

    def of(self, name: str) -> dict[str, Any]:
        """A schema, or a reference to its definition."""
        return dict(self._schemas[name])

    def resolved(self, name: str) -> dict[str, Any]:
        """A schema, with a reference replaced by its definition."""
        schema = self.of(name)
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return dict(schema)


def _operation(
    operation: Operation, schemas: _Schemas, registry: Registry, *, secured: bool
) -> dict[str, Any]:
    name = operation.handler.__name__
    text = inspect.getdoc(operation.handler) or ""
    described: dict[str, Any] = {
        "operationId": name,
        "tags": [operation.tag],
        "summary": text.partition("\n")[0],
        "description": text,
        "parameters": _parameters(operation, schemas, registry) + list(HEADERS.get(name, [])),
        "responses": _responses(operation, schemas, secured=secured),
    }
    if operation.takes_file:
        described["requestBody"] = _file_body()
    elif operation.body is CreateBatch:
        described["requestBody"] = _creation_body(schemas, registry)
    elif operation.body is not None:
        described["requestBody"] = {
            "required": any(field.is_required() for field in operation.body.model_fields.values()),
            "content": {JSON: {"schema": schemas.of(operation.body.__name__)}},
        }
    if secured and not operation.public:
        described["security"] = [{"bearer": []}, {"key": []}]
    return described


def _parameters(
    operation: Operation, schemas: _Schemas, registry: Registry
) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)", operation.path)
    ]
    if operation.query is not None:
        schema = schemas.resolved(operation.query.__name__)
        for name, value in schema.get("properties", {}).items():
            parameters.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "schema": _without_null(value),
                }
            )
    for parameter in parameters if operation.takes_file and registry.batch_types else ():
        if parameter["name"] == "batch_type":
            parameter["schema"] = {"type": "string", "enum": list(registry.batch_types)}
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query parameter. A query cannot contain null; it leaves parameters out."""
    rest = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if not rest:
        return schema
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return kept | (rest[0] if len(rest) == 1 else {"anyOf": rest})


def _responses(operation: Operation, schemas: _Schemas, *, secured: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in operation.answers.items():
        responses[str(status)] = {"description": "Done." if status < 400 else "Not available now."}
        if status == 304:
            responses["304"] = {"description": "Unchanged.", "headers": ETAG}
            responses["200"]["headers"] = ETAG
        if status in {204, 304}:
            continue
        schema = schemas.of(model.__name__) if model else CONTENTS.get(operation.media_type, TEXT)
        responses[str(status)]["content"] = {operation.media_type: {"schema": schema}}
    refusals = {*operation.problems, *((401,) if secured and not operation.public else ()), 503}
    for status in sorted(refusals - set(operation.answers)):
        responses[str(status)] = _problem(PROBLEMS[status], schemas)
    responses["default"] = _problem("Any other error.", schemas)
    return responses


def _problem(text: str, schemas: _Schemas) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM: {"schema": schemas.of("Problem")}}}


def _file_body() -> dict[str, Any]:
    form = {"type": "object", "properties": {"file": FILE}, "required": ["file"]}
    raw = ("text/csv", "application/x-ndjson", "application/json", "application/octet-stream")
    return {
        "required": True,
        "content": {name: {"schema": FILE} for name in raw}
        | {"multipart/form-data": {"schema": form}},
    }


def _creation_body(schemas: _Schemas, registry: Registry) -> dict[str, Any]:
    """One schema for each batch type, selected by `batch_type`."""
    general = schemas.resolved("CreateBatch")
    mapping: dict[str, str] = {}
    samples: dict[str, Any] = {}
    for name in registry.batch_types:
        title = f"Create_{name}"
        model = registry.get(name).model()
        item = {} if model is None else schemas.of(f"item:{name}")
        schemas.definitions[title] = _for_type(general, name, item)
        mapping[name] = REF.format(model=title)
        if model is not None:
            record = example(schemas.resolved(f"item:{name}"), schemas.definitions)
            samples[name] = {"value": {"batch_type": name, "items": [record], "process": "wait"}}
    if not mapping:
        return {"required": True, "content": {JSON: {"schema": general}}}
    schema = {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "batch_type", "mapping": mapping},
    }
    return {"required": True, "content": {JSON: {"schema": schema, "examples": samples}}}


def _for_type(general: dict[str, Any], name: str, item: dict[str, Any]) -> dict[str, Any]:
    # Items that do not fit the model are accepted too and become failed items: hence the {}.
    records = {"type": "array", "items": {"anyOf": [item, {}]} if item else {}}
    properties = general["properties"] | {
        "batch_type": {"const": name, "type": "string"},
        "items": records | {"description": "The records, in order."},
    }
    return general | {
        "title": f"Create_{name}",
        "properties": properties,
        "required": ["batch_type", "items"],
    }


BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "email": "ann@example.com",
    "uuid": "01890a5d-ac96-774b-bcce-b302099a8057",
    "uri": "https://example.com/",
}
DEEPEST = 8


def example(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> Any:
    """Return the schema's first example, or its default, or a value of its type.

    Args:
        definitions: The definitions that references name.
    """
    if "$ref" in schema:
        schema = definitions.get(schema["$ref"].rpartition("/")[2], {})
    if schema.get("examples"):
        return schema["examples"][0]
    for name in ("const", "default"):
        if schema.get(name) is not None:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example(schema[name][0], definitions, depth)
    return _of_type(schema, definitions, depth)


def _of_type(schema: dict[str, Any], definitions: dict[str, Any], depth: int) -> Any:
    value: Any = None
    match schema.get("type"):
        case "object":
            members = schema.get("properties", {}) if depth < DEEPEST else {}
            value = {name: example(each, definitions, depth + 1) for name, each in members.items()}
        case "array":
            value = [example(schema.get("items", {}), definitions, depth + 1)]
        case "integer":
            value = _at_least(schema, 1)
        case "number":
            value = _at_least(schema, 1.5)
        case "boolean":
            value = True
        case "string":
            value = BY_FORMAT.get(schema.get("format", ""), "text")
    return value


def _at_least(schema: dict[str, Any], value: float) -> float:
    if "exclusiveMinimum" in schema:
        value = max(value, schema["exclusiveMinimum"] + 1)
    low = max(value, schema.get("minimum", value))
    return type(value)(min(low, schema.get("maximum", low)))
