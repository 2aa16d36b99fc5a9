"""The state of all imports in Prometheus' text format.

The numbers come from the database, so all processes report the same ones, and restarts lose
nothing. They are gauges, since a purge lowers them. Only the pool metrics are about this process.
"""

from collections.abc import Iterable, Iterator, Sequence
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
    """Measure, and return the metrics in Prometheus' text format.

    Args:
        manager: An open manager.
        visible: Which batches count; None for all.
    """
    registry = CollectorRegistry(auto_describe=False)
    use = manager.pool_use()  # before measuring takes a connection
    registry.register(_Measured(await manager.measure(BOUNDS, visible=visible), use))
    return generate_latest(registry)


class _Measured(Collector):
    """Measurements as metrics of the client library."""

    def __init__(self, measured: Measurements, use: PoolUse) -> None:
        self._measured = measured
        self._use = use

    def collect(self) -> Iterator[Metric]:
        """Every metric with its samples."""
        measured = self._measured
        yield _gauge(
            "batches",
            "Batches, by type and status.",
            ["batch_type", "status"],
            measured.batches.items(),
        )
        yield _gauge(
            "items",
            "Items, by type and outcome.",
            ["batch_type", "outcome"],
            measured.items.items(),
        )
        yield _durations(measured)
        yield GaugeMetricFamily(
            f"{PREFIX}_oldest_transaction_seconds",
            "Age of the oldest running transaction on the database.",
            measured.oldest_transaction,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_expired_leases",
            "Ranges whose lease has expired and that no worker has taken over yet.",
            measured.expired_leases,
        )
        yield _pool(self._use)


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _durations(measured: Measurements) -> Metric:
    family = HistogramMetricFamily(
        f"{PREFIX}_batch_duration_seconds",
        "Time from start to end of finished batches.",
        labels=["batch_type"],
    )
    bounds = [str(bound) for bound in BOUNDS] + ["+Inf"]
    for name, durations in measured.durations.items():
        buckets = list(zip(bounds, accumulate(map(float, durations.buckets)), strict=True))
        family.add_metric([name], buckets, durations.seconds)
    return family


def _pool(use: PoolUse) -> Metric:
    text = "Connections of this process's pool: open, in use, and the limit."
    states = {"open": use.size, "lent": use.lent, "limit": use.limit}
    return _gauge("pool_connections", text, ["state"], [([name], n) for name, n in states.items()])
