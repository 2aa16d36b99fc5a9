"""The options of a batch: thresholds, skipping of unchanged items and control totals.

The creator of a batch gives them, the batch stores them, and they override the processor's own.
"""

import difflib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from typing_extensions import TypedDict

from ..database.guard import Connection
from ..errors import ConfigurationError, TotalsDisagree
from ..models import ImportBatch
from ..processors.keys import STORED_LOCK_KEYS
from ..processors.processor import BaseProcessor
from ..processors.thresholds import Thresholds
from ..store import summaries
from ..wording import counted

SHOWN = 30


class BatchOptions(TypedDict, total=False):
    """Further arguments of `create_batch`.

    Attributes:
        max_failures: The batch pauses when more items fail; by default, the processor decides.
        max_failure_rate: The batch pauses when a larger share (0 to 1) of its settled items
            failed; by default, the processor decides.
        min_processed: Settled items before the rate is checked; by default, the processor decides.
        skip_unchanged: False processes every item, even if the processor has `skip_unchanged`.
        expect: Control totals: ``{"count": 1000, "sum": {"amount": "12.50"}}``. A source whose
            records do not add up to them is refused.
        allow_empty: Whether there may be no records. By default, an empty file is refused, and an
            empty iterable creates a batch that is completed immediately.
    """

    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None
    skip_unchanged: bool | None
    expect: Mapping[str, Any] | None
    allow_empty: bool | None


class ThresholdOptions(TypedDict, total=False):
    """The arguments of `set_thresholds`, as in `BatchOptions`; None leaves a threshold as it is."""

    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None


class ProcessOptions(TypedDict, total=False):
    """Further arguments of `process_batch`.

    Attributes:
        commit_interval: How many items share a transaction in this call, instead of the
            processor's number; 1 gives each item its own.
        processes: How many processes work on the batch in this call, this one included; each has
            a pool of its own. Processors and their modules must be importable there. Default 1.
        max_failures: As in `BatchOptions`; from now on, for all processes that work on the batch.
        max_failure_rate: Likewise.
        min_processed: Likewise.
    """

    commit_interval: int | None
    processes: int
    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None


def require_names(function: str, given: Mapping[str, Any], known: type) -> None:
    """Refuse unknown keyword arguments, as Python itself would.

    Args:
        function: The name of the function, for the message.
        given: Its further arguments.
        known: The typed dictionary that declares them.

    Raises:
        TypeError: One of them is not declared.
    """
    names = known.__annotations__
    for name in given:
        if name not in names:
            similar = difflib.get_close_matches(name, names, n=1)
            question = f" Did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}.{question}")


def stored_options(processor: BaseProcessor[Any], given: BatchOptions) -> dict[str, Any]:
    """The options that a batch stores: those of its creator, else those of its processor.

    Raises:
        ConfigurationError: An option is not valid.
    """
    own = (processor.max_failures, processor.max_failure_rate, processor.min_processed)
    failures, rate, processed = (
        given.get("max_failures"),
        given.get("max_failure_rate"),
        given.get("min_processed"),
    )
    thresholds = Thresholds(
        max_failures=own[0] if failures is None else failures,
        max_failure_rate=own[1] if rate is None else rate,
        min_processed=own[2] if processed is None else processed,
    )
    skipping = _skipping(processor, given.get("skip_unchanged"))
    locking = {STORED_LOCK_KEYS: True} if processor.overrides("lock_key") else {}
    return thresholds.options() | skipping | locking | expected(given.get("expect"))


def _skipping(processor: BaseProcessor[Any], given: object) -> dict[str, Any]:
    """The stored option for unchanged items; none if the processor decides."""
    if given not in (None, False, True) or (isinstance(given, int) and not isinstance(given, bool)):
        raise ConfigurationError(
            f"skip_unchanged={given!r} is not valid.",
            hint="set it to False to process every item, or leave it out.",
        )
    if given and not processor.skip_unchanged:
        raise ConfigurationError(
            "skip_unchanged needs a processor that supports it.",
            hint="the processor has to set skip_unchanged and define item_key.",
        )
    return {"skip_unchanged": False} if given is False else {}


def expected(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Control totals in the form in which a batch's options store them.

    Args:
        given: ``{"count": 1000, "sum": {"amount": "12.50"}}``, or one of the two.

    Raises:
        ConfigurationError: They have another form.
    """
    if not given:
        return {}
    count, sums = given.get("count"), given.get("sum", {})
    known = set(given) <= {"count", "sum"} and isinstance(sums, Mapping)
    if not known or not (count is None or (type(count) is int and count >= 0)):
        raise ConfigurationError(
            f"expect={given!r} is not valid.",
            hint='write {"count": 1000, "sum": {"amount": "12.50"}}, or one of the two.',
        )
    totals: dict[str, Any] = {} if count is None else {"count": count}
    totals["agreed"] = True  # they are compared before the batch exists
    return {"expect": totals | {"sum": {str(name): _number(name, sums[name]) for name in sums}}}


def _number(name: object, value: object) -> str:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or isinstance(value, bool):
        raise ConfigurationError(
            f"The expected sum of {name} is {value!r}, which is not a number.",
            hint="write a number such as 12.50.",
        )
    return str(number)


def require_columns(options: Mapping[str, Any], columns: Sequence[str] | None) -> None:
    """Check that a file has the columns whose sums are expected.

    Raises:
        ConfigurationError: A column is missing.
    """
    names = options.get("expect", {}).get("sum", {})
    if columns is not None and (unknown := [name for name in names if name not in columns]):
        raise _unknown(unknown, ", ".join(map(repr, columns[:SHOWN])))


async def require_totals(
    conn: Connection, batch_id: UUID, options: Mapping[str, Any], total: int, unreadable: int
) -> None:
    """Check that the records of a batch that is being created add up to its control totals.

    Args:
        conn: The connection of the creating transaction.
        batch_id: The batch.
        options: Its options, with the control totals.
        total: How many records there are.
        unreadable: How many of them could not be read.

    Raises:
        TotalsDisagree: The count or a sum differs, or values are not numbers.
        ConfigurationError: A sum is expected of a field that no record has.
    """
    wrong = await _disagreements(conn, batch_id, options, total)
    if wrong and unreadable:
        wrong.append(f"{counted(unreadable, 'record')} could not be read and added nothing")
    if wrong:
        raise TotalsDisagree(
            f"The control totals do not agree: {'; '.join(wrong)}.",
            hint="nothing was imported; compare the file with its source.",
        )


async def unchecked_disagreements(conn: Connection, batch: ImportBatch) -> str | None:
    """The same for a batch that an older version created, which compared only at the end."""
    if batch.options.get("expect", {}).get("agreed"):
        return None
    wrong = await _disagreements(conn, batch.id, batch.options, batch.total_items)
    return f"control totals do not agree: {'; '.join(wrong)}" if wrong else None


async def _disagreements(
    conn: Connection, batch_id: UUID, options: Mapping[str, Any], total: int
) -> list[str]:
    expect = options.get("expect")
    if expect is None:
        return []
    wrong = []
    if expect.get("count") not in {None, total}:
        wrong.append(f"count is {total}, expected {expect['count']}")
    names = list(expect["sum"])
    for name, actual in zip(names, await summaries.sums(conn, batch_id, names), strict=True):
        if total and not actual.present:
            raise _unknown([name], "none of the records has it")
        if actual.odd:
            verb, noun = ("is", "a number") if actual.odd == 1 else ("are", "numbers")
            values = f"{counted(actual.odd, 'value')} {verb} not {noun}"
            wrong.append(f"{values} in {name}, e.g. {actual.example!r}")
        elif Decimal(actual.total) != Decimal(expect["sum"][name]):
            wrong.append(f"sum of {name} is {actual.total}, expected {expect['sum'][name]}")
    return wrong


def _unknown(names: Sequence[str], known: str) -> ConfigurationError:
    listed = ", ".join(map(repr, names))
    return ConfigurationError(
        f"A sum of {listed} is expected, but there is no such column ({known}).",
        hint="write the name exactly as in the file.",
    )
