"""Control totals: what the sender says the records add up to, against what they do."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from .errors import ConfigurationError
from .guarded import Connection
from .models import BatchSummary
from .store import summaries


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
    return {"expect": kept | {"sum": {str(name): _number(name, sums[name]) for name in sums}}}


async def disagreements(
    conn: Connection, batch_id: UUID, options: Mapping[str, Any], summary: BatchSummary
) -> str | None:
    """Which control totals the records of a batch do not add up to, with both figures."""
    wanted = options.get("expect")
    if wanted is None:
        return None
    wrong = []
    if wanted.get("count") not in {None, summary.total_items}:
        wrong.append(f"count is {summary.total_items}, expected {wanted['count']}")
    if names := list(wanted["sum"]):
        for name, found in zip(names, await summaries.sums(conn, batch_id, names), strict=True):
            if Decimal(found) != Decimal(wanted["sum"][name]):
                wrong.append(f"sum of {name} is {found}, expected {wanted['sum'][name]}")
    return f"control totals do not agree: {'; '.join(wrong)}" if wrong else None


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
