"""Charts: the geometry of the bars that templates draw as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ...models import BatchSummary, Minute, Tick
from ...wording import counted

WIDTH, HEIGHT, BARS = 600.0, 90.0, 60


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: successful items at the bottom, failed ones on top, and its tooltip."""

    x: float
    width: float
    good_y: float
    good_height: float
    failed_y: float
    failed_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart.

    Attributes:
        peak: The highest value, in items a second.
        first: The label at its left end.
        last: The label at its right end.
        text: The chart in a sentence.
        note: How the values were computed.
    """

    bars: tuple[Bar, ...]
    peak: float
    first: str
    last: str
    text: str
    note: str


def throughput(minutes: Sequence[Minute]) -> Chart | None:
    """Items per second, minute by minute; None if nothing was processed."""
    values = [(each.settled / 60, each.failed / 60, f"{each.at:%H:%M}") for each in minutes]
    if not any(value for value, _, _ in values):
        return None
    total = sum(each.settled for each in minutes)
    failed = sum(each.failed for each in minutes)
    return _chart(
        values,
        f"{minutes[0].at:%H:%M}",
        "now",
        f"{counted(total, 'item')} in the last {counted(len(minutes), 'minute')}, "
        f"{failed:,.0f} failed.",
        "The items of a batch are spread evenly over its run time. Times in UTC.",
    )


def timeline(ticks: Sequence[Tick], step: int) -> Chart | None:
    """Items per second from the start to the end of a batch; None for fewer than two items."""
    if len(ticks) < 2:
        return None
    first = min(tick.at for tick in ticks)
    seconds = max((max(tick.at for tick in ticks) - first).total_seconds(), 0.001)
    width = seconds / BARS
    good, failed = [0] * BARS, [0] * BARS
    for tick in ticks:
        bar = min(BARS - 1, int((tick.at - first).total_seconds() / width))
        (failed if tick.failed else good)[bar] += step
    values = [
        ((ok + bad) / width, bad / width, _clock(first, width * n, seconds))
        for n, (ok, bad) in enumerate(zip(good, failed, strict=True))
    ]
    note = "All items." if step == 1 else f"Estimated from every {_ordinal(step)} item."
    return _chart(
        values,
        _clock(first, 0, seconds),
        _clock(first, seconds, seconds),
        f"Items per second over {seconds:,.1f} seconds.",
        f"{note} Times in UTC.",
    )


def _ordinal(count: int) -> str:
    """42nd."""
    ending = (
        "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    )
    return f"{count:,}{ending}"


def _clock(first: datetime, after: float, seconds: float) -> str:
    at = first + timedelta(seconds=after)
    if seconds < 60:
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    return f"{at:%H:%M:%S}" if seconds < 86_400 else f"{at:%Y-%m-%d %H:%M}"


def _chart(
    values: Sequence[tuple[float, float, str]], first: str, last: str, text: str, note: str
) -> Chart:
    peak = _round_up(max(value for value, _, _ in values))
    step = WIDTH / len(values)
    bars = []
    for n, (value, failed, when) in enumerate(values):
        bad = HEIGHT * failed / peak
        good = HEIGHT * (value - failed) / peak
        bars.append(
            Bar(
                x=round(n * step + 0.5, 2),
                width=round(step - 1, 2),
                good_y=round(HEIGHT - good, 2),
                good_height=round(good, 2),
                failed_y=round(HEIGHT - good - bad, 2),
                failed_height=round(bad, 2),
                title=f"{when}: {value:,.1f} items/s, {failed:,.1f} failed",
            )
        )
    return Chart(tuple(bars), peak, first, last, text, note)


def _round_up(value: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = float(10 ** math.floor(math.log10(max(value, 0.001))))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a progress bar, in percent."""

    kind: str
    x: float
    width: float


def shares(summary: BatchSummary) -> tuple[Share, ...]:
    """Completed, skipped and failed items as parts of a bar."""
    parts, x = [], 0.0
    for kind in ("completed", "skipped", "failed"):
        width = 100 * getattr(summary, f"{kind}_items") / max(1, summary.total_items)
        parts.append(Share(kind, round(x, 3), round(width, 3)))
        x += width
    return tuple(parts)


def remaining(summary: BatchSummary) -> float | None:
    """Estimated seconds until the end at the current rate; None without a rate."""
    rate = summary.items_per_second
    if summary.status != "processing" or not rate or not summary.pending_items:
        return None
    return summary.pending_items / rate
