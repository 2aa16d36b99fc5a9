"""JSON whose numbers stay as they are written: 12345678901234567.89 and 1.10 are no float's repr.

Values that are only passed through are read and written here, so that an edit, an export or a page
changes nothing but what somebody changed.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Self, TypeVar

from anyio import CancelScope, to_thread
from pydantic_core import from_json, to_json

_PLAIN = frozenset({str, int, float, bool, type(None)})
_MARK = f"number {secrets.token_hex(16)} "  # no text of anybody has it


class ExactFloat(float):
    """A float that remembers its digits; str() shows them, so a Decimal made of it is exact."""

    __slots__ = ("digits",)
    digits: str

    def __new__(cls, digits: str) -> Self:
        """The number that these digits write, in JSON's notation."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    def __repr__(self) -> str:
        return self.digits

    __str__ = __repr__

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # what copies are made of
        return (self.digits,)


def read(text: str) -> Any:
    """JSON text as PostgreSQL gives it, which is known to be good, as plain values.

    A number that float would write differently becomes an `ExactFloat`.
    """
    value = from_json(text)
    return _DECODER.decode(text) if _holds_float(value) else value


def _holds_float(value: object) -> bool:
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind is float
    inner: Any = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, inner))
    if float in kinds:
        return True
    return (dict in kinds or list in kinds) and any(map(_holds_float, inner))


def read_unchecked(text: str) -> Any:
    """The same for text that somebody has typed or sent.

    Raises:
        ValueError: It is not JSON, or holds NaN or an infinity, which JSON does not have.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write(value: object, **options: Any) -> bytes:
    """A value as JSON text; the options are those of `pydantic_core.to_json`."""
    text = to_json(value, **options)
    if (b"." in text or b"nfinity" in text or b"null" in text) and holds_exact(value):
        return _unmarked(to_json(_marked(value), **options).decode()).encode()
    return text


def write_readable(value: object, *, indent: int | None = None) -> str:
    """The same as people read it: spaces between values, or one on each line."""
    if not holds_exact(value):
        return json.dumps(value, ensure_ascii=False, indent=indent)
    return _unmarked(json.dumps(_marked(value), ensure_ascii=False, indent=indent))


def same(one: object, other: object) -> bool:
    """Whether two values are written the same, but for the order of names."""
    return json.dumps(_marked(one), sort_keys=True) == json.dumps(_marked(other), sort_keys=True)


def with_digits_of(new: Any, old: Any) -> Any:
    """A record that came back from a reader of floats, with the digits it could not keep.

    Most clients read numbers as floats and send back the float's digits. Where such a number is all
    that a float can tell about the old one, it was not changed.
    """
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: with_digits_of(one, old.get(name)) for name, one in new.items()}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [with_digits_of(one, before) for one, before in zip(new, old, strict=True)]
    return old if _is_float_of(new, old) else new


def holds_exact(value: object) -> bool:
    """Whether any number in a value remembers its digits."""
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        inner: Any = value.values() if isinstance(value, dict) else value
        return not _PLAIN.issuperset(map(type, inner)) and any(map(holds_exact, inner))
    return kind is ExactFloat or (isinstance(value, Mapping) and holds_exact(dict(value)))


def _marked(value: Any) -> Any:
    """A copy in which such numbers are texts that `_unmarked` finds."""
    if type(value) is ExactFloat:
        return f"{_MARK}{value.digits}{_MARK}"
    if isinstance(value, dict):
        return {name: _marked(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(one) for one in value]
    return value


def _unmarked(text: str) -> str:
    return text.replace(f'"{_MARK}', "").replace(f'{_MARK}"', "")


def number(digits: str) -> float:
    """The number that these digits write: a plain float where that would write them again."""
    plain = float(digits)
    return plain if repr(plain) == digits else ExactFloat(digits)


def _no_constant(token: str) -> None:
    raise ValueError(f"{token} is not a number in JSON")


def _is_float_of(new: object, old: object) -> bool:
    numbers = int | float
    if not isinstance(new, numbers) or not isinstance(old, numbers):
        return False
    if isinstance(new, bool) or isinstance(old, bool):
        return False
    if isinstance(new, ExactFloat) and Decimal(new.digits) != Decimal(float.__repr__(new)):
        return False  # it has more digits than a float
    try:
        return float(new) == float(old) and (isinstance(old, ExactFloat) or abs(old) > 2**53)
    except OverflowError:  # an integer beyond all floats
        return False


_DECODER = json.JSONDecoder(parse_float=number, parse_constant=_no_constant)


Result = TypeVar("Result")

LARGE = 16_384  # bytes or characters; for less, a thread would cost more than the work


async def aside(size: int, work: Callable[[], Result]) -> Result:
    """Do some work, in a thread where it is much; it is not interrupted.

    Args:
        size: Of what is worked on, in bytes or characters.
        work: What to do.
    """
    if size <= LARGE:
        return work()
    done: list[Result] = []
    with CancelScope(shield=True):
        await to_thread.run_sync(lambda: done.append(work()))
    return done[0]
