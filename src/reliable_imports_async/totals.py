"""Control totals: what the sender says the records add up to, against what they do."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from .errors import ConfigurationError, TotalsDisagree
from .guarded import Connection
from .models import ImportBatch
from .store import summaries

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


async def require(
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
