"""The short torture that belongs to the suite; `make torture` is the long one."""

import pytest

from .run import Plan, torture

SEED = 7


@pytest.mark.long
async def test_faults_lose_nothing_double_nothing_and_judge_nothing_wrongly():
    report = await torture(Plan(SEED, seconds=20, workers=3))
    print(report.table())
    assert not report.violations
    for fault in ("kill", "freeze", "restart", "lose_answer", "alter", "poison"):
        assert report.faults.get(fault), "a run without faults proves nothing"
    assert report.counts["items"] >= 1_000
