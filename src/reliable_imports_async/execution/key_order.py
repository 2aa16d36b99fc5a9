"""The keys of an item: items that share a key take effect in the order of their numbers.

A processor declares them (`lock_key`, `item_key`, `key`), or they are learnt from the keys by which
it calls `ctx.upsert`.
"""

import json
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, EmailStr

from ..models import ImportBatch, ImportBatchItem
from ..processors.keys import STORED_LOCK_KEYS
from ..processors.processor import BaseProcessor, fields_of, is_declared, key_of
from .prepare import read_data

logger = logging.getLogger("reliable_imports_async")

EVERYTHING = "everything"
_SPELT = (str, int, float, Decimal, date, UUID)  # compared by their coarse spellings
_PLAIN = (str, int, UUID, EmailStr)  # the database can compare their spellings

Columns = tuple[str, ...]
Keys = tuple[str, ...]


class KeyLearnt(Exception):
    """An upsert by a key that was not known: it was not run, and its item has to run again."""


class Ordering:
    """The keys of the items of one drain.

    Attributes:
        version: Counts the keys learnt. Ranges that were claimed under an older version have to be
            handed back, and claimed again under the keys that are known now.
    """

    def __init__(self, processor: BaseProcessor[Any], batch: ImportBatch) -> None:
        self.version = 0
        self._processor = processor
        self._batch = batch
        self._lock_key = processor.overrides("lock_key")
        self._item_key = processor.overrides("item_key")
        self._fields: list[Columns] = []
        cls = type(processor)
        declared = key_of(processor)
        if declared and (processor.model() is None or set(declared) <= set(fields_of(cls))):
            self._fields.append(declared)
        self._modelled = processor.model() is not None
        self._learns = False
        self._learnt: dict[Columns, Mapping[str, str]] = {}
        self._everything = False

    def begin(self) -> None:
        """Learn from upserts from now on."""
        self._learns = not (self._lock_key or is_declared(type(self._processor)))

    @property
    def active(self) -> bool:
        """Whether items have keys that are known."""
        return self._lock_key or self._item_key or self._everything or bool(self._fields)

    @property
    def kinds(self) -> str | None:
        """The kinds of keys as JSON, for comparisons in the database; None: there are no keys."""
        if not self.active:
            return None
        kinds: list[object] = []
        if self._item_key:
            kinds.append("item_key")
        if self._lock_key:
            stored = self._batch.options.get(STORED_LOCK_KEYS)
            kinds.append("lock_key" if stored else EVERYTHING)
        for names in self._fields:
            raw = [name for name in map(self._raw_name, names) if name is not None]
            kinds.append(raw or EVERYTHING)
        if self._everything:
            kinds.append(EVERYTHING)
        return json.dumps(kinds)

    def keys(self, item: ImportBatchItem[Any]) -> tuple[Keys, bool]:
        """The keys of an item; and whether its model has read it for that."""
        if self._everything:
            return (EVERYTHING,), False
        keys: list[str] = []
        if self._item_key and item.item_key is not None:
            keys.append("item " + _of_text(item.item_key))
        if self._lock_key and (lock := self._lock(item)) is not None:
            keys.append("lock " + lock)
        if not self._fields or not self._read(item):
            return tuple(keys), False
        keys += [_of_fields(item.data, names) for names in self._fields]
        return tuple(keys), self._modelled

    @property
    def only_fields(self) -> bool:
        """Whether items have no other keys than fields of their data."""
        return not (self._lock_key or self._item_key or self._everything)

    def keys_of(self, data: Sequence[Any]) -> Keys:
        """The keys of many records that were read, if these are `only_fields`, each once."""
        keys: dict[str, None] = {}
        for names in self._fields:
            keys.update(dict.fromkeys([_of_fields(each, names) for each in data]))
        return tuple(keys)

    def upserting_one(
        self, item: ImportBatchItem[Any] | None, columns: Columns, values: Mapping[str, Any]
    ) -> None:
        """Do the same as `upserting` for a single item."""
        if self._learns and item is not None:
            self.upserting((item,), columns, values)

    def upserting(
        self,
        items: Sequence[ImportBatchItem[Any]],
        columns: Columns,
        values: Mapping[str, Any],
    ) -> None:
        """Learn from an upsert that is about to run.

        Args:
            items: The items for one of which it runs.
            columns: The columns of its key.
            values: Its values by column.

        Raises:
            KeyLearnt: The key was not known, so items that share it were not kept in order.
        """
        if not self._learns or self._everything or not set(columns) <= values.keys():
            return
        origins = self._learnt.get(columns)
        if origins is not None:
            if any(_agrees(item, origins, values) for item in items):
                return
            origins = {}
        else:
            origins = self._learnt[columns] = _origins(items, columns, values)
        names = set(origins.values())
        if any(names.issuperset(known) for known in self._fields):
            return  # items with equal keys have equal values in these fields, too
        if names:
            self._fields.append(tuple(sorted(names)))
        else:
            self._everything = True
            self._warn(columns)
        self.version += 1
        raise KeyLearnt

    def _warn(self, columns: Columns) -> None:
        logger.warning(
            "%s upserts by %s, a key that its records do not have: its items run one by one, in "
            "order. Define lock_key(record) to let items with different keys run at once.",
            type(self._processor).__qualname__,
            ", ".join(columns),
        )

    def _read(self, item: ImportBatchItem[Any]) -> bool:
        """Let the model read an item; False: it refuses that, and the item will fail."""
        try:
            read_data(self._processor, item)
        except Exception:  # noqa: BLE001 - the item fails with it when it is prepared
            return False
        return True

    def _lock(self, item: ImportBatchItem[Any]) -> str | None:
        """The item's `lock_key`, coarsely; None: it has no key, or has failed because of it."""
        try:
            key = self._processor.lock_key(item.source_data)
        except Exception:  # noqa: BLE001 - user code; the item has failed by it when it was created
            return None
        if not isinstance(key, tuple):
            return None if key is None or key == "" else coarse(key)
        return None if None in key or "" in key else "\x1f".join(map(coarse, key))

    def _raw_name(self, name: str) -> str | None:
        """The name of a field in stored records; None: the model may compute its value."""
        model = self._processor._model  # noqa: SLF001 - as `processors.fields_of`
        if model is None:
            return name
        if isinstance(model, type) and issubclass(model, BaseModel):
            return _raw_name(model, name)
        if isinstance(model, type) and is_dataclass(model):
            plain = {
                field.name
                for field in fields(model)
                if _is_plain(field.type) and field.default is field.default_factory is MISSING
            }
            return name if name in plain else None
        return None


def _origins(
    items: Sequence[ImportBatchItem[Any]], columns: Columns, values: Mapping[str, Any]
) -> dict[str, str]:
    """The fields of a record from which an upsert probably has the values of its key.

    A field of the same name, or else a field with the same value.
    """
    origins: dict[str, str] = {}
    for column in columns:
        value = coarse(values[column])
        for item in items:
            data = _fields_in(item.data)
            same = [name for name, own in data.items() if coarse(own) == value]
            if column in same or (value and same):
                origins[column] = column if column in same else same[0]
                break
    return origins


def _agrees(
    item: ImportBatchItem[Any], origins: Mapping[str, str], values: Mapping[str, Any]
) -> bool:
    """Whether the values of an upsert's key are those of the same fields of this item."""
    return all(
        coarse(values[column]) == coarse(_value(item.data, name))
        for column, name in origins.items()
    )


def _of_fields(data: Any, names: Columns) -> str:
    if len(names) == 1:
        return f"{names[0]} {coarse(_value(data, names[0]))}"
    return "\x1f".join((*names, *(coarse(_value(data, name)) for name in names)))


def _of_text(text: str) -> str:
    """A key as `key_text` stores it, coarsely: each part of a tuple by itself."""
    if text.startswith('["'):
        try:
            return "\x1f".join(map(coarse, json.loads(text)))
        except ValueError:
            pass  # a text that only looks like JSON
    return coarse(text)


def _fields_in(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else getattr(data, "__dict__", {})


def _value(data: Any, name: str) -> Any:
    if not isinstance(data, BaseModel) and isinstance(data, Mapping):  # the second takes longer
        return data.get(name)
    return getattr(data, name, None)


def coarse(value: object) -> str:
    """A part of a key, equal for all spellings that a column could regard as the same value.

    "07", 7 and " 7.0" are the same number to a numeric column, "a" and "A" the same text to citext.
    Values of other types are empty, and so equal. If different keys look equal, an item waits
    without need.
    """
    if type(value) is str:  # nearly always
        return _of_str(value)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, datetime):  # the same moment has many spellings
        return ""
    return _of_str(str(value)) if isinstance(value, _SPELT) else ""


def _of_str(text: str) -> str:
    if not text.isascii():  # collations may ignore accents
        text = "".join(
            c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
        )
    text = text.strip().casefold().replace("_", "")
    short = text.lstrip("+-0 ")
    if "." in short:
        short = short.rstrip("0").rstrip(".")
    return short or "0" * ("0" in text)


def _raw_name(model: type[BaseModel], name: str) -> str | None:
    """The name of a model's field in stored records, if the model does not change its value."""
    info = model.model_fields[name]
    alias, config = info.validation_alias, model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    if not (alias is None or (isinstance(alias, str) and not by_name)):
        return None
    decorators = model.__pydantic_decorators__
    changed = decorators.model_validators or decorators.root_validators or decorators.validators
    validated = any(
        not {name, "*"}.isdisjoint(validator.info.fields)
        for validator in decorators.field_validators.values()
    )
    functions = any(hasattr(each, "func") for each in info.metadata)  # such as BeforeValidator
    own = model.__init__ is not BaseModel.__init__
    if changed or validated or functions or own or not info.is_required():
        return None
    return (alias or name) if _is_plain(info.annotation) else None


def _is_plain(annotation: object) -> bool:
    return any(annotation is plain for plain in _PLAIN)
