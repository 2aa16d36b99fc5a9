"""Dataclasses as plain values that json.dumps takes."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

_PLAIN = frozenset({str, int, float, bool, type(None)})


def json_ready(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass, and what is in them, as json.dumps takes them; bytes as base64."""
    return {name: _ready(getattr(value, name)) for name in _names(value.__class__, without)}


@cache
def _names(cls: Any, without: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(cls) if each.name not in without)


def _ready(value: object) -> object:
    if type(value) in _PLAIN:  # most are; the patterns below are slow
        return value
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
