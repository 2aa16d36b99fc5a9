"""A record that fits a JSON schema, for the API document."""

from typing import Any

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
