"""What has happened to the items of an interval in its transaction, and what is still to run."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..log_buffer import LogLine
from ..models import ImportBatchItem
from ..outcomes import Failure, Outcome, Postponed
from .prepare import Prepared
from .savepoints import Savepoints
from .settler import lines_of


@dataclass(slots=True)
class Done:
    """An item with its outcome, as far as this transaction goes: what is stored about it."""

    prepared: Prepared
    outcome: Outcome
    seconds: float = 0.0

    @property
    def item(self) -> ImportBatchItem[Any]:
        """As it was read."""
        return self.prepared.item

    @property
    def lines(self) -> Sequence[LogLine]:
        """The log lines to store."""
        if isinstance(self.outcome, Postponed):
            return lines_of(self.prepared.log, self.item, self.outcome)
        return self.prepared.lines


@dataclass(slots=True)
class Round:
    """What happens in one transaction.

    Attributes:
        waiting: What has not run yet, in order.
        suspects: What runs last, and alone.
        keyed: Whether any item has keys; those that share one run in order.
        lines: Log lines that belong to no single item.
        done: What has, by item number, in the order in which it ended.
        accused: Items that failed after others whose effects were then undone, with the numbers
            of those others. Each counts as failed only once they have succeeded again.
    """

    waiting: deque[Prepared]
    savepoints: Savepoints
    keyed: bool = False
    suspects: deque[Prepared] = field(default_factory=deque)
    lines: list[LogLine] = field(default_factory=list)
    done: dict[int, Done] = field(default_factory=dict)
    accused: dict[int, set[int]] = field(default_factory=dict)

    @property
    def next(self) -> Prepared | None:
        """What runs next."""
        left = self.waiting or self.suspects
        return left[0] if left else None

    def next_run(self, distance: int) -> list[Prepared]:
        """The next items to run behind one savepoint."""
        if not self.waiting:
            return [self.suspects.popleft()]
        return [self.waiting.popleft() for _ in range(min(distance, len(self.waiting)))]

    def screen(self, suspects: Callable[[Prepared], bool]) -> None:
        """Set apart what is suspected by now."""
        found = [one for one in self.waiting if suspects(one)]
        if found:
            self.suspects.extend(found)
            apart = {one.item.item_number for one in found}
            self.waiting = deque(w for w in self.waiting if w.item.item_number not in apart)
        if self.keyed:
            self._arrange()

    def _arrange(self) -> None:
        """Let nothing overtake an earlier item of its key.

        Behind one that runs last, or that may have to run again, it runs last as well. Behind one
        that is tried again later it does not run in this transaction.
        """
        last = {one.item.item_number for one in self.suspects}
        pending = (*self.waiting, *self.suspects)
        ended = [
            one.prepared
            for number, one in self.done.items()
            if number in self.accused or isinstance(one.outcome, Postponed)
        ]
        self.waiting, self.suspects = deque(), deque()
        apart, later = set[str](), set[str]()
        for one in sorted((*pending, *ended), key=lambda one: one.item.item_number):
            number = one.item.item_number
            if number in self.done:
                postponed = isinstance(self.done[number].outcome, Postponed)
                (later if postponed else apart).update(one.keys)
            elif not later.isdisjoint(one.keys):
                later.update(one.keys)
            elif number in last or not apart.isdisjoint(one.keys):
                apart.update(one.keys)
                self.suspects.append(one)
            else:
                self.waiting.append(one)

    def put_back(self, run: Sequence[Prepared]) -> None:
        """These run next."""
        self.waiting.extendleft(reversed(run))

    def succeeded(self, run: Sequence[Prepared], outcomes: Sequence[Outcome]) -> None:
        """A run, or the beginning of it, is kept."""
        for prepared, outcome in zip(run, outcomes, strict=False):
            self.done[prepared.item.item_number] = Done(prepared, outcome)
        if self.accused:
            self._testify({prepared.item.item_number for prepared in run[: len(outcomes)]})
        self.put_back(run[len(outcomes) :])

    def _testify(self, numbers: set[int]) -> None:
        """These have succeeded again; who is accused in the face of them alone has failed."""
        tested = {number: left - numbers for number, left in self.accused.items()}
        self.accused = {number: left for number, left in tested.items() if left}

    def failed(self, run: Sequence[Prepared], culprit: int, ended: Done) -> None:
        """An item of an undone run failed; those before it run again, then those behind it."""
        before, guilty, behind = run[:culprit], run[culprit].item.item_number, run[culprit + 1 :]
        acquitted = [number for number, left in self.accused.items() if guilty in left]
        self.put_back(behind)
        self.put_back([self.done.pop(number).prepared for number in sorted(acquitted)])
        self.put_back(before)
        self.accused = {n: left for n, left in self.accused.items() if n not in acquitted}
        self.done[guilty] = ended
        if before:
            self.accused[guilty] = {one.item.item_number for one in before}
        if self.keyed:
            self._arrange()

    def certain(self) -> dict[int, Done]:
        """The outcomes that will not change any more."""
        return {number: one for number, one in self.done.items() if number not in self.accused}


REMEMBERED = 10_000

_KEY = re.compile(r"[^(]*+\((?P<columns>[^()]++)\)=\((?P<values>.*?)\)(?: |\Z)", re.DOTALL)

Columns = tuple[str, ...]
Values = tuple[str, ...]


class Screening:
    """The keys that PostgreSQL has named in this batch, by their columns."""

    def __init__(self) -> None:
        self._known: dict[Columns, dict[Values, None]] = {}

    def learn(self, failure: Failure) -> bool:
        """Remember the key a failure names, such as ``Key (dest)=(SJU)``; whether it is new."""
        found = _KEY.match(failure.detail or "") if failure.sqlstate else None
        if found is None:
            return False
        columns = tuple(found["columns"].split(", "))
        values = tuple(found["values"].split(", ")) if len(columns) > 1 else (found["values"],)
        known = self._known.setdefault(columns, {})
        if len(columns) != len(values) or values in known:
            return False
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[values] = None
        return True

    def suspects(self, item: ImportBatchItem[Any]) -> bool:
        """Whether an item carries a key that was named."""
        for columns, known in self._known.items():
            if _values(item.source_data, columns) in known:
                return True
            if item.data is not item.source_data and _values(item.data, columns) in known:
                return True
        return False

    def acquit(self, item: ImportBatchItem[Any]) -> None:
        """An item with such a key has succeeded: its cause is gone, for the others as well."""
        for columns, known in self._known.items():
            for source in (item.source_data, item.data):
                known.pop(_values(source, columns), None)


def _values(source: Any, columns: Columns) -> Values:
    """A record's values for some columns, as PostgreSQL would show most of them."""
    if type(source) is dict or isinstance(source, Mapping):  # the second takes long
        if len(columns) == 1:
            return (str(source.get(columns[0])),)
        return tuple([str(source.get(column)) for column in columns])
    return tuple([str(getattr(source, column, None)) for column in columns])
