"""What the creator of a batch may ask of whoever processes it; kept in the batch's options."""

import difflib
from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from .errors import ConfigurationError
from .item_keys import STORED_LOCK_KEYS
from .processors import BaseProcessor
from .stopping import Thresholds
from .totals import expected


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
