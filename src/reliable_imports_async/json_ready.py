"""Dataclasses as plain values that json.dumps takes."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


def json_ready(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass, and what is in them, as json.dumps takes them; bytes as base64."""
    names = [each.name for each in fields(value) if each.name not in without]
    return {name: _ready(getattr(value, name)) for name in names}


def _ready(value: object) -> object:
    ready: object = value
    match value:
        case StrEnum():
            ready = value.value
        case bytes():
            ready = b64encode(value).decode()
        case UUID():
            ready = str(value)
        case datetime():
            ready = value.isoformat()
        case list() | tuple():
            ready = [_ready(element) for element in value]
        case Mapping():
            ready = {key: _ready(element) for key, element in value.items()}
        case _ if is_dataclass(value):
            ready = json_ready(value)
    return ready
