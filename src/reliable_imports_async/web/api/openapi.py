"""The API document: OpenAPI 3.1, made from the route table and the registered processors."""

import inspect
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Literal

from openapi_pydantic import OpenAPI
from pydantic import BaseModel, TypeAdapter

from ...processors.registry import Registry
from ..http import payloads
from .routes import OPERATIONS, Operation

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
    """The schema's own first example, or its default, or a value of its type.

    Args:
        definitions: Where references lead to, by the last part of their names.
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
            value = {name: example(one, definitions, depth + 1) for name, one in members.items()}
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


JSON, PROBLEM = "application/json", "application/problem+json"
REF = "#/components/schemas/{model}"
PATH_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "batch_id": {"type": "string", "format": "uuid"},
    "item_number": {"type": "integer", "minimum": 1, "maximum": payloads.LARGEST_NUMBER},
}
TAGS = {
    "batches": "Create batches, and see where they stand.",
    "actions": "What changes a batch.",
    "items": "Records, their outcomes, their log lines, and the files of what failed.",
    "progress": "Follow a batch as it runs.",
    "server": "The server itself.",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request gives the same batch, also where the file "
    "was imported before; the response then has the header `Idempotency-Replayed: true`. With "
    "another request it is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
}
HEADERS: Mapping[str, list[dict[str, Any]]] = {
    "create_batch": [IDEMPOTENCY_KEY],
    "upload_batch": [IDEMPOTENCY_KEY],
    "stream_events": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Sent by browsers when they connect again.",
            "schema": {"type": "string", "maxLength": 100},
        }
    ],
}
FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}
# Of a stream of events its readers expect the description of one.
CONTENTS = {
    "text/event-stream": {"description": "Events with an `id`, an `event` and JSON `data`."}
}

Mode = Literal["validation", "serialization"]


def document(registry: Registry, base: str, *, secured: bool) -> dict[str, Any]:
    """The document of an API.

    Args:
        registry: Its processors; those with a model describe their items.
        base: Where it is mounted.
        secured: Whether callers must say who they are.
    """
    schemas = _Schemas(registry)
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        if not one.hidden:
            described = _operation(one, schemas, registry, secured=secured)
            path = re.sub(r":\w+}", "}", one.path)
            paths.setdefault(path, {})[one.method.lower()] = described
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
            "description": "Brings records into PostgreSQL without losing or doubling any.",
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
    """The JSON schemas of all payloads and of the processors' models, with their definitions."""

    def __init__(self, registry: Registry) -> None:
        inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = []
        taken: list[type[BaseModel]] = []
        given: list[type[BaseModel]] = [payloads.Problem]
        for one in OPERATIONS:
            taken += [model for model in (one.query, one.body) if model is not None]
            given += [model for model in one.answers.values() if model is not None]
        inputs += [(model.__name__, "validation", TypeAdapter(model)) for model in taken]
        inputs += [(model.__name__, "serialization", TypeAdapter(model)) for model in given]
        records = [(name, registry.get(name).model()) for name in registry.batch_types]
        inputs += [(f"item:{name}", "validation", model) for name, model in records if model]
        unique = {(name, mode): (name, mode, adapter) for name, mode, adapter in inputs}
        found, shared = TypeAdapter.json_schemas(list(unique.values()), ref_template=REF)
        self.definitions: dict[str, Any] = dict(shared.get("$defs", {}))
        self._found = {name: schema for (name, _), schema in found.items()}

    def of(self, name: str) -> dict[str, Any]:
        """A schema, or a reference to it."""
        return dict(self._found[name])

    def resolved(self, name: str) -> dict[str, Any]:
        """A schema itself."""
        schema = self.of(name)
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return dict(schema)


def _operation(
    one: Operation, schemas: _Schemas, registry: Registry, *, secured: bool
) -> dict[str, Any]:
    name = one.handler.__name__
    text = inspect.getdoc(one.handler) or ""
    described: dict[str, Any] = {
        "operationId": name,
        "tags": [one.tag],
        "summary": text.partition("\n")[0],
        "description": text,
        "parameters": _parameters(one, schemas, registry) + list(HEADERS.get(name, [])),
        "responses": _responses(one, schemas, secured=secured),
    }
    if one.takes_file:
        described["requestBody"] = _file_body()
    elif one.body is payloads.CreateBatch:
        described["requestBody"] = _creation_body(schemas, registry)
    elif one.body is not None:
        described["requestBody"] = {
            "required": any(field.is_required() for field in one.body.model_fields.values()),
            "content": {JSON: {"schema": schemas.of(one.body.__name__)}},
        }
    if secured and not one.public:
        described["security"] = [{"bearer": []}, {"key": []}]
    return described


def _parameters(one: Operation, schemas: _Schemas, registry: Registry) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)", one.path)
    ]
    if one.query is not None:
        schema = schemas.resolved(one.query.__name__)
        for name, value in schema.get("properties", {}).items():
            found.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "schema": _without_null(value),
                }
            )
    for kind in found if one.takes_file and registry.batch_types else ():
        if kind["name"] == "batch_type":
            kind["schema"] = {"type": "string", "enum": list(registry.batch_types)}
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what is not sent is not there."""
    rest = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if not rest:
        return schema
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return kept | (rest[0] if len(rest) == 1 else {"anyOf": rest})


def _responses(one: Operation, schemas: _Schemas, *, secured: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, model in one.answers.items():
        found[str(status)] = {"description": "Done." if status < 400 else "Not now."}
        if status == 204:
            continue
        schema = schemas.of(model.__name__) if model else CONTENTS.get(one.media_type, TEXT)
        found[str(status)]["content"] = {one.media_type: {"schema": schema}}
    refusals = {*one.problems, *((401,) if secured and not one.public else ()), 503}
    for status in sorted(refusals - set(one.answers)):
        found[str(status)] = _problem(PROBLEMS[status], schemas)
    found["default"] = _problem("Anything else that went wrong.", schemas)
    return found


PROBLEMS = {
    400: "The request cannot be read.",
    401: "Say who you are.",
    404: "There is no such thing, or you may not see it.",
    409: "It contradicts what is there: the batch's status, or a file that was imported before.",
    413: "Too large.",
    415: "This media type is not understood.",
    422: "The request does not fit its description.",
    429: "Too many at once.",
    503: "The database does not answer; try again.",
}


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
    """A body for each batch type, told apart by `batch_type`."""
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
    # Whatever does not fit the model is taken too, and becomes a failed item: hence the {}.
    records = {"type": "array", "items": {"anyOf": [item, {}]} if item else {}}
    properties = general["properties"] | {
        "batch_type": {"const": name, "type": "string"},
        "items": records | {"description": "The records, in their order."},
    }
    return general | {
        "title": f"Create_{name}",
        "properties": properties,
        "required": ["batch_type", "items"],
    }
