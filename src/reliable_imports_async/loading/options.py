"""What the creator of a batch may ask of whoever processes it; kept in the batch's options."""

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

SHOWN = 30


def expected(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Control totals as the options of a batch keep them.

    Raises:
        ConfigurationError: They are not ``{"count": …, "sum": {"field": …}}``.
    """
    if not given:
        return {}
    count, sums = given.get("count"), given.get("sum", {})
    known = set(given) <= {"count", "sum"} and isinstance(sums, Mapping)
    if not known or not (count is None or (type(count) is int and count >= 0)):
        raise ConfigurationError(
            f"expect={given!r} cannot work.",
            hint='write {"count": 1000, "sum": {"amount": "12.50"}}, either or both.',
        )
    kept: dict[str, Any] = {} if count is None else {"count": count}
    kept["agreed"] = True  # compared before the batch exists
    return {"expect": kept | {"sum": {str(name): _number(name, sums[name]) for name in sums}}}


def require_columns(options: Mapping[str, Any], columns: Sequence[str] | None) -> None:
    """Refuse sums of columns that a file does not have.

    Raises:
        ConfigurationError: It has no such column.
    """
    names = options.get("expect", {}).get("sum", {})
    if columns is not None and (unknown := [name for name in names if name not in columns]):
        raise _unknown(unknown, ", ".join(map(repr, columns[:SHOWN])))


async def require_totals(
    conn: Connection, batch_id: UUID, options: Mapping[str, Any], total: int, unreadable: int
) -> None:
    """Refuse a batch that is being created when its records do not add up to its control totals.

    Args:
        total: How many records there are.
        unreadable: How many of them could not be read.

    Raises:
        TotalsDisagree: A sum, or the count, is another one; or values are not numbers.
        ConfigurationError: No record has a field of which the sum is expected.
    """
    wrong = await _disagreements(conn, batch_id, options, total)
    if wrong and unreadable:
        wrong.append(f"records that could not be read, and add nothing: {unreadable:,}")
    if wrong:
        raise TotalsDisagree(
            f"The control totals do not agree: {'; '.join(wrong)}.",
            hint="nothing was imported; compare the file with where it came from.",
        )


async def unchecked_disagreements(conn: Connection, batch: ImportBatch) -> str | None:
    """The same for a batch of an older version, which compared at the end only."""
    if batch.options.get("expect", {}).get("agreed"):
        return None
    wrong = await _disagreements(conn, batch.id, batch.options, batch.total_items)
    return f"control totals do not agree: {'; '.join(wrong)}" if wrong else None


async def _disagreements(
    conn: Connection, batch_id: UUID, options: Mapping[str, Any], total: int
) -> list[str]:
    wanted = options.get("expect")
    if wanted is None:
        return []
    wrong = []
    if wanted.get("count") not in {None, total}:
        wrong.append(f"count is {total}, expected {wanted['count']}")
    names = list(wanted["sum"])
    for name, found in zip(names, await summaries.sums(conn, batch_id, names), strict=True):
        if total and not found.present:
            raise _unknown([name], "none of the records has it")
        if found.odd:
            values = (
                "1 value is not a number"
                if found.odd == 1
                else f"{found.odd:,} values are not numbers"
            )
            wrong.append(f"{values} in {name}, e.g. {found.example!r}")
        elif Decimal(found.total) != Decimal(wanted["sum"][name]):
            wrong.append(f"sum of {name} is {found.total}, expected {wanted['sum'][name]}")
    return wrong


def _unknown(names: Sequence[str], known: str) -> ConfigurationError:
    listed = ", ".join(map(repr, names))
    return ConfigurationError(
        f"A sum of {listed} is expected, and there is no such column ({known}).",
        hint="write the name exactly as in the file.",
    )


def _number(name: object, value: object) -> str:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or isinstance(value, bool):
        raise ConfigurationError(
            f"The expected sum of {name} is {value!r}, which is no number.", hint="such as 12.50."
        )
    return str(number)


class BatchOptions(TypedDict, total=False):
    """Further arguments of `create_batch`.

    Attributes:
        max_failures: Failed items beyond which the batch pauses; by default the processor's.
        max_failure_rate: Their share (0-1) of the items with an outcome; likewise.
        min_processed: Items with an outcome before the rate counts; likewise.
        skip_unchanged: False processes every item, also of a processor with `skip_unchanged`.
        expect: Control totals: ``{"count": 1000, "sum": {"amount": "12.50"}}``. A source whose
            records do not add up to them is refused.
        allow_empty: Whether there may be no records. By default a file without any is refused,
            and an iterable without any makes a batch that is completed at once.
    """

    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None
    skip_unchanged: bool | None
    expect: Mapping[str, Any] | None
    allow_empty: bool | None


class ThresholdOptions(TypedDict, total=False):
    """The arguments of `set_thresholds`: as for `create_batch`; None leaves one as it is."""

    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None


class ProcessOptions(TypedDict, total=False):
    """Further arguments of `process_batch`.

    Attributes:
        commit_interval: Items that share a transaction here, instead of what the processor says; 1
            gives each its own.
        max_failures: As for `create_batch`; from now on for everybody who works on the batch.
        max_failure_rate: Likewise.
        min_processed: Likewise.
    """

    commit_interval: int | None
    max_failures: int | None
    max_failure_rate: float | None
    min_processed: int | None


def require_names(function: str, given: Mapping[str, Any], known: type) -> None:
    """Refuse keyword arguments that a function does not have, as Python itself would.

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
            close = difflib.get_close_matches(name, names, n=1)
            perhaps = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}.{perhaps}")


def stored_options(processor: BaseProcessor[Any], given: BatchOptions) -> dict[str, Any]:
    """What a batch keeps: what its creator says, else what its processor does.

    Raises:
        ConfigurationError: One of them cannot work.
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
    """What the options say about unchanged items: nothing where the processor decides."""
    if given not in (None, False, True) or (isinstance(given, int) and not isinstance(given, bool)):
        raise ConfigurationError(
            f"skip_unchanged is {given!r}.", hint="False processes every item; leave it out else."
        )
    if given and not processor.skip_unchanged:
        raise ConfigurationError(
            "skip_unchanged needs a processor that has it.",
            hint="the processor has to set skip_unchanged, beside its item_key.",
        )
    return {"skip_unchanged": False} if given is False else {}
