"""JSON whose numbers keep their digits, such as 12345678901234567.89 and 1.10.

A float would write these numbers differently. Values that are only passed on are read and written
here, so that an edit, an export or a page changes only the values that a user changed.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Self, TypeVar

from anyio import CancelScope, to_thread
from pydantic_core import from_json, to_json

_PLAIN = frozenset({str, int, float, bool, type(None)})
_FLAT = _PLAIN - {float}
_MARK = f"number {secrets.token_hex(16)} "  # random, so that no text contains it
Result = TypeVar("Result")
LARGE = 16_384  # bytes or characters; for less, a thread would cost more than the work


class ExactFloat(float):
    """A float that keeps its digits; str() returns them, so a Decimal of it is exact."""

    __slots__ = ("digits",)
    digits: str

    def __new__(cls, digits: str) -> Self:
        """The number with these digits, in JSON's notation."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    def __repr__(self) -> str:
        return self.digits

    __str__ = __repr__

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # for copies
        return (self.digits,)


def read(text: str) -> Any:
    """Parse valid JSON text, as PostgreSQL returns it.

    A number that a float would write differently becomes an `ExactFloat`.
    """
    value = from_json(text)
    return _DECODER.decode(text) if _holds_float(value) else value


def read_unchecked(text: str) -> Any:
    """Parse JSON text that a user typed or sent.

    Raises:
        ValueError: It is not JSON, or contains NaN or an infinity.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write(value: object, **options: Any) -> bytes:
    """Write a value as JSON; the options are those of `pydantic_core.to_json`."""
    text = to_json(value, **options)
    if (b"." in text or b"nfinity" in text or b"null" in text) and holds_exact(value):
        return _unmarked(to_json(_marked(value), **options).decode()).encode()
    return text


def write_readable(value: object, *, indent: int | None = None) -> str:
    """Write a value as JSON for people: with spaces, or indented over several lines."""
    if not holds_exact(value):
        return json.dumps(value, ensure_ascii=False, indent=indent)
    return _unmarked(json.dumps(_marked(value), ensure_ascii=False, indent=indent))


def same(first: object, second: object) -> bool:
    """Whether two values are the same JSON, apart from the order of names."""
    return json.dumps(_marked(first), sort_keys=True) == json.dumps(_marked(second), sort_keys=True)


def with_digits_of(new: Any, old: Any) -> Any:
    """A new record that keeps the digits of unchanged numbers in the old one.

    Most clients read numbers as floats and send the float's digits back. A number that equals the
    float of the old number was not changed, so the old digits are kept.
    """
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: with_digits_of(value, old.get(name)) for name, value in new.items()}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [with_digits_of(value, before) for value, before in zip(new, old, strict=True)]
    return old if _is_float_of(new, old) else new


def holds_exact(value: object) -> bool:
    """Whether a value contains an `ExactFloat`."""
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        inner: Any = value.values() if isinstance(value, dict) else value
        return not _PLAIN.issuperset(map(type, inner)) and any(map(holds_exact, inner))
    return kind is ExactFloat or (isinstance(value, Mapping) and holds_exact(dict(value)))


def number(digits: str) -> float:
    """The number with these digits: a float if it writes the same digits, else an `ExactFloat`."""
    plain = float(digits)
    return plain if repr(plain) == digits else ExactFloat(digits)


async def aside(size: int, work: Callable[[], Result]) -> Result:
    """Run a function, in a thread if there is much to do; it is not interrupted.

    Args:
        size: The size of its input, in bytes or characters.
        work: The function.
    """
    if size <= LARGE:
        return work()
    done: list[Result] = []
    with CancelScope(shield=True):
        await to_thread.run_sync(lambda: done.append(work()))
    return done[0]


def _holds_float(value: object) -> bool:
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind is float
    inner: Any = value.values() if isinstance(value, dict) else value
    if _FLAT.issuperset(map(type, inner)):
        return False  # nearly always
    return any(map(_holds_float, inner))


def _marked(value: Any) -> Any:
    """A copy in which each `ExactFloat` is a text that `_unmarked` recognises."""
    if type(value) is ExactFloat:
        return f"{_MARK}{value.digits}{_MARK}"
    if isinstance(value, dict):
        return {name: _marked(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(element) for element in value]
    return value


def _unmarked(text: str) -> str:
    return text.replace(f'"{_MARK}', "").replace(f'{_MARK}"', "")


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
