"""The hooks of a batch type that run outside of any transaction, whoever defines them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..database.guard import ReadingConnection
from ..log_buffer import LogBuffer
from ..models import BatchSummary, ImportBatch
from ..store.outbox import OutboxHook
from .context import ImportContext
from .processor import BaseProcessor


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """A call of a hook for a batch as it is stored.

    Attributes:
        manager: The BatchManager, for an endpoint's context; this room does not know its class.
        connection: Reads from the database.
        details: What the outbox has stored with the hook.
        log: Takes the log lines of the hook.
    """

    batch: ImportBatch
    summary: BatchSummary
    manager: Any
    connection: ReadingConnection
    details: Mapping[str, Any]
    log: LogBuffer = field(default_factory=LogBuffer)


Hook = Callable[[HookCall], Awaitable[None]]


class EndpointHooks:
    """What the engine knows of an endpoint; the REST API's `BaseEndpoint` is the only subclass."""

    batch_type: ClassVar[str] = ""

    @classmethod
    def _check(cls) -> None:
        """Raise NotAnEndpoint when the class has a malformed hook."""

    def _hooks(self) -> Mapping[OutboxHook, Hook]:
        """The hooks that the endpoint defines."""
        return {}


def hooks_of(
    processor: BaseProcessor[Any] | None, endpoint: EndpointHooks | None
) -> dict[OutboxHook, Hook]:
    """The hooks of a batch type that its processor and its endpoint define."""
    hooks = {} if endpoint is None else dict(endpoint._hooks())  # noqa: SLF001 - not for users
    if processor is not None and processor.overrides("after_batch_complete"):

        async def after_batch_complete(call: HookCall) -> None:
            ctx = ImportContext(call.batch, call.connection, log=call.log)
            await processor.after_batch_complete(call.summary, ctx)

        hooks[OutboxHook.PROCESSOR_AFTER_COMPLETE] = after_batch_complete
    return hooks
