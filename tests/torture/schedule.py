"""What is going to happen, decided by the seed alone before anything starts."""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge

# Kinds of faults and how often each comes, per second and on average. Two tempers take turns: where
# everything is torn down all the time, no frozen worker keeps its transaction until it wakes, and
# a protocol that cannot bear zombies would pass.
STEALTH = {"freeze": 0.6, "lose_answer": 1.2, "lose_commit": 0.5, "alter": 0.2, "fill_disk": 0.15}
FURY = {
    "kill": 1.5,
    "terminate": 1.5,
    "restart": 0.2,
    "silence": 0.15,
    "alter": 0.2,
    "lose_answer": 1.5,
    "lose_commit": 0.5,
    "cut_request": 1.0,
    "cut_reply": 1.0,
}
USUAL = (sum(STEALTH.values()) + sum(FURY.values())) / 2
"""Faults a second; as many as three workers live through."""
TURN_SECONDS = 7.0
FIRST = {
    0.0: "freeze",
    1.0: "alter",
    2.0: "fill_disk",
    TURN_SECONDS: "restart",
    TURN_SECONDS + 2.0: "kill",
}
"""So that the shortest run has met the worst."""


@dataclass(frozen=True, order=True)
class Event:
    """One fault.

    Attributes:
        at: Seconds after the start.
        choice: Between 0 and 1: picks the victim, and how long it is frozen or silent.
    """

    at: float
    kind: str
    choice: float


def schedule(seed: int, pace: float = 1.0, kinds: Collection[str] = ()) -> Iterator[Event]:
    """The faults of a run in the order of their time, without an end; `pace` times the usual.

    Args:
        kinds: Only these, as many of them as there are of all otherwise.
    """
    decide = random.Random(seed)
    if kinds:
        alone = {kind: USUAL / len(kinds) for kind in sorted(kinds)}
        return _random(decide, pace, alone, alone)
    first = [Event(at, kind, decide.random()) for at, kind in FIRST.items()]
    return merge(first, _random(decide, pace, STEALTH, FURY))


def _random(decide: random.Random, pace: float, *tempers: Mapping[str, float]) -> Iterator[Event]:
    at = 0.0
    while True:
        rates = tempers[int(at / TURN_SECONDS) % len(tempers)]
        at += decide.expovariate(sum(rates.values()) * pace)
        kind = decide.choices(list(rates), list(rates.values()))[0]
        yield Event(at, kind, decide.random())
