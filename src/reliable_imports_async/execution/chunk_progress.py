"""The progress of a chunk in its transaction: which items have run, and which run next, and how."""

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..log_buffer import LogLine
from ..models import ImportBatchItem
from ..outcomes import Failure, Outcome, Postponed
from .prepare import Prepared
from .savepoints import Savepoints
from .settler import lines_of

REMEMBERED = 10_000

_KEY = re.compile(r"[^(]*+\((?P<columns>[^()]++)\)=\((?P<values>.*?)\)(?: |\Z)", re.DOTALL)

Columns = tuple[str, ...]
Values = tuple[str, ...]


@dataclass(slots=True)
class Done:
    """An item that has run, with its outcome in this transaction."""

    prepared: Prepared
    outcome: Outcome
    seconds: float = 0.0

    @property
    def item(self) -> ImportBatchItem[Any]:
        """The item."""
        return self.prepared.item

    @property
    def lines(self) -> Sequence[LogLine]:
        """The log lines to store."""
        if isinstance(self.outcome, Postponed):
            return lines_of(self.prepared.log, self.item, self.outcome)
        return self.prepared.lines


class SuspectKeys:
    """The keys that PostgreSQL has named in failures of this batch, by their columns.

    Most items with such a key fail for the same reason. They run last, each behind a savepoint of
    its own, so that no other item has to be repeated because of them.
    """

    def __init__(self) -> None:
        self._known: dict[Columns, dict[Values, None]] = {}

    def learn(self, failure: Failure) -> bool:
        """Add the key that a failure names, such as ``Key (dest)=(SJU)``; True if it is new."""
        named = _KEY.match(failure.detail or "") if failure.sqlstate else None
        if named is None:
            return False
        columns = tuple(named["columns"].split(", "))
        values = tuple(named["values"].split(", ")) if len(columns) > 1 else (named["values"],)
        known = self._known.setdefault(columns, {})
        if len(columns) != len(values) or values in known:
            return False
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[values] = None
        return True

    def among(self, items: Iterable[Prepared]) -> list[Prepared]:
        """Those of some items that have a suspect key."""
        return [prepared for prepared in items if self.match(prepared.item)] if self._known else []

    def match(self, item: ImportBatchItem[Any]) -> bool:
        """Whether an item has a suspect key."""
        for columns, known in self._known.items():
            if _values(item.source_data, columns) in known:
                return True
            if item.data is not item.source_data and _values(item.data, columns) in known:
                return True
        return False

    def clear(self, item: ImportBatchItem[Any]) -> None:
        """Remove the keys of an item that has succeeded: the cause is gone for other items, too."""
        for columns, known in self._known.items():
            for source in (item.source_data, item.data):
                known.pop(_values(source, columns), None)


def _values(source: Any, columns: Columns) -> Values:
    """A record's values for some columns, as PostgreSQL shows most of them."""
    if type(source) is dict or isinstance(source, Mapping):  # the second check takes long
        if len(columns) == 1:
            return (str(source.get(columns[0])),)
        return tuple([str(source.get(column)) for column in columns])
    return tuple([str(getattr(source, column, None)) for column in columns])


@dataclass(slots=True)
class ChunkProgress:
    """Which items of a chunk have run in its transaction, and which run next.

    Attributes:
        waiting: The items that have not run yet, in order.
        savepoints: The savepoints of the transaction.
        keyed: Whether any item has keys; items that share a key run in order.
        alone: The items that run last, each behind a savepoint of its own.
        lines: Log lines about no single item.
        done: The items that have run, by number, in the order in which they ended.
        provisional: Items that failed in a run, with the numbers of the items before them in it,
            whose effects were undone. The failure counts once those items have succeeded again.
    """

    waiting: deque[Prepared]
    savepoints: Savepoints
    keyed: bool = False
    alone: deque[Prepared] = field(default_factory=deque)
    lines: list[LogLine] = field(default_factory=list)
    done: dict[int, Done] = field(default_factory=dict)
    provisional: dict[int, set[int]] = field(default_factory=dict)

    @property
    def next(self) -> Prepared | None:
        """The item that runs next; None: all have run."""
        items = self.waiting or self.alone
        return items[0] if items else None

    def next_run(self, distance: int) -> list[Prepared]:
        """Take the items that run behind the next savepoint."""
        if not self.waiting:
            return [self.alone.popleft()]
        return [self.waiting.popleft() for _ in range(min(distance, len(self.waiting)))]

    def set_apart(self, suspect_keys: SuspectKeys) -> None:
        """Let items with suspect keys run last."""
        suspect = suspect_keys.among(self.waiting)
        if suspect:
            self.alone.extend(suspect)
            apart = {prepared.item.item_number for prepared in suspect}
            self.waiting = deque(w for w in self.waiting if w.item.item_number not in apart)
        if self.keyed and (self.alone or self.done):
            self._arrange()

    def _arrange(self) -> None:
        """Keep items of the same key in order.

        If an earlier item runs last, or may have to run again, the later ones run last as well.
        If an earlier item is postponed, they do not run in this transaction.
        """
        last = {prepared.item.item_number for prepared in self.alone}
        pending = (*self.waiting, *self.alone)
        unsure = [
            done.prepared
            for number, done in self.done.items()
            if number in self.provisional or isinstance(done.outcome, Postponed)
        ]
        self.waiting, self.alone = deque(), deque()
        apart, later = set[str](), set[str]()
        for prepared in sorted((*pending, *unsure), key=lambda each: each.item.item_number):
            number, keys = prepared.item.item_number, prepared.keys
            if number in self.done:
                postponed = isinstance(self.done[number].outcome, Postponed)
                (later if postponed else apart).update(keys)
            elif not later.isdisjoint(keys):
                later.update(keys)
            elif number in last or not apart.isdisjoint(keys):
                apart.update(keys)
                self.alone.append(prepared)
            else:
                self.waiting.append(prepared)

    def put_back(self, items: Sequence[Prepared]) -> None:
        """Let these items run next."""
        self.waiting.extendleft(reversed(items))

    def succeeded(self, items: Sequence[Prepared], outcomes: Sequence[Outcome]) -> None:
        """Note the outcomes of a run that is kept; items without outcomes run next."""
        for prepared, outcome in zip(items, outcomes, strict=False):
            self.done[prepared.item.item_number] = Done(prepared, outcome)
        if self.provisional:
            self._confirm({prepared.item.item_number for prepared in items[: len(outcomes)]})
        self.put_back(items[len(outcomes) :])

    def _confirm(self, numbers: set[int]) -> None:
        """Confirm provisional failures after which all these items have succeeded again."""
        tested = {number: before - numbers for number, before in self.provisional.items()}
        self.provisional = {number: before for number, before in tested.items() if before}

    def failed(self, items: Sequence[Prepared], position: int, ended: Done) -> None:
        """Note that an item of an undone run failed; the items before and after it run again."""
        before, failed, behind = items[:position], ended.item.item_number, items[position + 1 :]
        again = [number for number, tested in self.provisional.items() if failed in tested]
        self.put_back(behind)
        self.put_back([self.done.pop(number).prepared for number in sorted(again)])
        self.put_back(before)
        self.provisional = {n: tested for n, tested in self.provisional.items() if n not in again}
        self.done[failed] = ended
        if before:
            self.provisional[failed] = {prepared.item.item_number for prepared in before}
        if self.keyed:
            self._arrange()

    def certain(self) -> dict[int, Done]:
        """The items whose outcomes are not provisional."""
        if not self.provisional:
            return self.done
        return {
            number: done for number, done in self.done.items() if number not in self.provisional
        }
