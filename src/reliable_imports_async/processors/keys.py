"""The keys of records: computing them, checking them, and finding duplicates by them.

An item key identifies a record within its batch and in later batches; a lock key keeps records
with the same key in order.
"""

import inspect
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from ..database.guard import Connection
from ..errors import ItemKeyRefused, NotAProcessor
from ..failures import describe, duplicate_failure, ends_process
from ..models import ImportBatch
from ..outcomes import Failure, FailureKind
from ..store import item_keys
from ..store.item_keys import RecordKeys, Remembering
from .processor import BaseProcessor, is_declared, key_of

STORED_LOCK_KEYS = "lock_keys"
"""The option that marks a batch whose items were stored with lock keys."""
LONGEST_KEY = 1_000
PAGE = 500
ON_DUPLICATE = ("process", "skip", "fail")
ONLY_ONE = (False, True, "wait", "refuse")


class ItemKeys:
    """Computes the keys of records with a processor.

    Attributes:
        processor: The processor.
    """

    def __init__(self, processor: BaseProcessor[Any]) -> None:
        self.processor = processor
        self._keyed = _has_item_keys(processor)
        self._declared = not processor.overrides("item_key")
        self._locking = processor.overrides("lock_key")

    @classmethod
    def of(cls, processor: BaseProcessor[Any]) -> "ItemKeys | None":
        """The keys of a processor; None if it has none."""
        return cls(processor) if has_keys(processor) else None

    def of_record(self, text: bytes | str) -> RecordKeys | Failure:
        """The keys of a stored record; a failure if it has no valid key."""
        hook = "item_key"
        try:
            record = from_json(text)
            key = key_text(self._given(record)) if self._keyed else None
            if not self._locking:
                return RecordKeys(key)
            hook = "lock_key"
            return RecordKeys(key, key_text(self.processor.lock_key(record), hook))
        except BaseException as exc:  # a user's code may raise anything; only its record fails
            if ends_process(exc):
                raise
            refused = exc if isinstance(exc, ItemKeyRefused) else _raised(exc, hook)
            return describe(refused, kind=FailureKind.VALIDATION)

    async def mark_repeated(self, conn: Connection, root_batch_id: UUID, batch_id: UUID) -> int:
        """Settle the items that repeat a key, in one statement; return their number."""
        on_duplicate = self.processor.on_duplicate
        if on_duplicate == "process" and not self.processor.skip_unchanged:
            return 0
        failure = duplicate_failure()
        marked = await item_keys.mark_repeated(
            conn, root_batch_id, batch_id, on_duplicate, failure.hint or "", failure.group
        )
        return 0 if on_duplicate == "process" else marked

    async def renew(self, conn: Connection, batch: ImportBatch) -> None:
        """Compute the keys of a reprocessing's items again, in the transaction that starts it.

        Records may have been edited by a process that does not have the processor.
        """
        failed, after = False, 0
        while page := await item_keys.pending_page(conn, batch.id, after, PAGE):
            after = page[-1][0]
            keys = {number: (self.of_record(text), old) for number, text, old in page}
            changed = {number: new for number, (new, old) in keys.items() if new != old}
            if changed:
                await item_keys.rekey(conn, batch.id, changed)
            failed = failed or any(isinstance(key, Failure) for key in changed.values())
        repeated = await self.mark_repeated(conn, batch.root_batch_id, batch.id)
        if failed or repeated:
            await item_keys.recount_ranges(conn, batch.id)

    def _given(self, record: dict[str, Any]) -> object:
        if self._declared:
            return tuple(record.get(name) for name in key_of(self.processor))
        return self.processor.item_key(record)


def has_keys(processor: BaseProcessor[Any]) -> bool:
    """Whether keys are stored with the items of a processor."""
    return _has_item_keys(processor) or processor.overrides("lock_key")


def remembering(processor: BaseProcessor[Any], batch_type: str) -> Remembering | None:
    """How a processor's contents are remembered; None if it does not skip unchanged records."""
    if not processor.skip_unchanged:
        return None
    return Remembering(batch_type, str(processor.version))


def skips_unchanged(options: Mapping[str, Any]) -> bool:
    """Whether unchanged items of a batch may be skipped, if its processor does so."""
    return options.get("skip_unchanged") is not False


def key_text(key: object, name: str = "item_key") -> str | None:
    """A key in its stored form: a text, a number as text, or a tuple as a JSON array of texts.

    As in a unique constraint, a missing value is equal to nothing: None or an empty text, also as
    a part of a tuple, means that there is no key.

    Raises:
        ItemKeyRefused: It has another type, is too long, or cannot be stored by PostgreSQL.
    """
    parts = [_part(part, name) for part in (key if isinstance(key, tuple) else (key,))]
    if not (parts and all(parts)):
        return None
    text = to_json(parts).decode() if isinstance(key, tuple) else str(parts[0])
    size = len(text.encode())
    if size > LONGEST_KEY:
        raise _refused(f"{name} is {size:,} bytes long; at most {LONGEST_KEY:,} are allowed.")
    return text


def check_keys(processor: BaseProcessor[Any]) -> None:
    """Check a processor's declarations about keys.

    Raises:
        NotAProcessor: An attribute has an unknown value, or keys are needed and missing.
    """
    cls = type(processor)
    class_name = f"{cls.__module__}.{cls.__qualname__}"
    for name, allowed in (
        ("on_duplicate", ON_DUPLICATE),
        ("only_one", ONLY_ONE),
        ("skip_unchanged", (False, True)),
    ):
        value = getattr(processor, name)
        if not any(value is each or (isinstance(each, str) and value == each) for each in allowed):
            shown = ", ".join(map(repr, allowed))
            raise NotAProcessor(f"{class_name}: {name} is {value!r}.", hint=f"use one of {shown}.")
    if isinstance(processor.version, bool) or not isinstance(processor.version, str | int):
        raise NotAProcessor(
            f"{class_name}: version is {processor.version!r}.",
            hint="use a text or a whole number.",
        )
    for hook in ("item_key", "lock_key"):
        function = getattr(cls, hook)
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise NotAProcessor(
                f"{class_name}.{hook} must be a plain method.",
                hint=f"write `def {hook}(self, record): return record['id']`.",
            )
    _check_item_keys(processor, class_name)


def _has_item_keys(processor: BaseProcessor[Any]) -> bool:
    """Whether a processor's items have item keys: by its method, or by the key of its table."""
    cls = type(processor)
    needed = processor.skip_unchanged or processor.on_duplicate != "process"
    return cls.overrides("item_key") or (needed and is_declared(cls))


def _part(part: object, name: str) -> str:
    """One part of a key as text; an empty text for a missing part."""
    if part is None:
        return ""
    if isinstance(part, bool) or not isinstance(part, str | int | float | Decimal):
        raise _refused(f"{name} returned {type(part).__name__}.")
    if isinstance(part, float | Decimal) and not math.isfinite(part):
        raise _refused(f"{name} returned a number that is not finite.")
    text = str.__str__(part) if isinstance(part, str) else format(part)
    if "\0" in text:
        raise _refused(f"{name} contains a NUL character, which PostgreSQL cannot store.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(f"{name} contains half a character (a lone surrogate).")
    return text


def _refused(message: str) -> ItemKeyRefused:
    hint = "return a text, a number, or a tuple of them; None for a record without a key."
    return ItemKeyRefused(message, hint=hint)


def _raised(exc: BaseException, hook: str) -> ItemKeyRefused:
    try:
        reason = f"{type(exc).__name__}: {exc}"
    except Exception:  # noqa: BLE001 - even this may be a user's code
        reason = type(exc).__name__
    return _refused(f"{hook} raised {reason}")


def _check_item_keys(processor: BaseProcessor[Any], class_name: str) -> None:
    needs = "skip_unchanged" if processor.skip_unchanged else "on_duplicate"
    if needs == "on_duplicate" and processor.on_duplicate == "process":
        return
    if not _has_item_keys(processor):
        raise NotAProcessor(
            f"{class_name} has {needs} but no item_key.",
            hint="write `def item_key(self, record): return record['id']`.",
        )
    if not processor.overrides("item_key") and (renamed := _renamed_key(processor)):
        raise NotAProcessor(
            f"{class_name}: the model's field {renamed} has another name in the records.",
            hint="write `def item_key(self, record): return record['…']`.",
        )


def _renamed_key(processor: BaseProcessor[Any]) -> str | None:
    """A field of a declared key that records may have under another name."""
    model = processor._model  # noqa: SLF001 - as `processors.fields_of`
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    fields = model.model_fields
    return next((name for name in key_of(processor) if fields[name].validation_alias), None)
