"""The state of all imports as Prometheus reads it.

The numbers come from the database, so every process tells the same, restarts lose nothing, and a
purge lowers them: they are gauges. Only the use of the pool is this process's own.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..database.pool import PoolUse
from ..manager import BatchManager
from ..store.metrics import Measurements
from ..store.visibility import Visibility

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)  # seconds
PREFIX = "reliable_imports"


async def render(manager: BatchManager, visible: Visibility | None = None) -> bytes:
    """Measure, and write it in Prometheus' text format.

    Args:
        manager: An open manager.
        visible: Which batches count; None for all.
    """
    registry = CollectorRegistry(auto_describe=False)
    use = manager.pool_use()  # before we use it ourselves
    registry.register(_Measured(await manager.measure(BOUNDS, visible=visible), use))
    return generate_latest(registry)


class _Measured(Collector):
    """Measurements, as the client library wants to be told them."""

    def __init__(self, measured: Measurements, use: PoolUse) -> None:
        self._measured = measured
        self._use = use

    def collect(self) -> Iterator[Metric]:
        """Every metric with its samples."""
        measured = self._measured
        yield _by_type(
            "batches", "Batches, by type and status.", "status", measured.batches.items()
        )
        yield _by_type("items", "Items, by type and outcome.", "outcome", measured.items.items())
        yield _durations(measured)
        yield GaugeMetricFamily(
            f"{PREFIX}_oldest_transaction_seconds",
            "Age of the oldest running transaction on the database.",
            measured.oldest_transaction,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_expired_leases",
            "Ranges whose worker fell silent and that nobody has taken over yet.",
            measured.expired_leases,
        )
        yield _pool(self._use)


def _by_type(
    name: str, text: str, label: str, counts: Iterable[tuple[tuple[str, str], int]]
) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["batch_type", label])
    for labels, count in counts:
        family.add_metric(labels, count)
    return family


def _durations(measured: Measurements) -> Metric:
    family = HistogramMetricFamily(
        f"{PREFIX}_batch_duration_seconds",
        "Time from the start of a batch to its end, of finished batches.",
        labels=["batch_type"],
    )
    bounds = [str(bound) for bound in BOUNDS] + ["+Inf"]
    for name, durations in measured.durations.items():
        buckets = list(zip(bounds, accumulate(map(float, durations.buckets)), strict=True))
        family.add_metric([name], buckets, durations.seconds)
    return family


def _pool(use: PoolUse) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}_pool_connections",
        "Connections of this process's pool: open, lent, and how many there may be.",
        labels=["state"],
    )
    for state, count in {"open": use.size, "lent": use.lent, "limit": use.limit}.items():
        family.add_metric([state], count)
    return family
