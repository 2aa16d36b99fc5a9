"""BaseEndpoint: what an application adds to the REST API of one batch type; all of it optional."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from ..errors import NotAnEndpoint
from ..log_buffer import LEVELS, LogBuffer, LogMethods
from ..models import BatchSummary, ImportBatch, LogLevel
from ..processors.hooks import EndpointHooks, Hook, HookCall
from ..processors.registry import Registry
from ..store.outbox import OutboxHook

if TYPE_CHECKING:  # the engine runs without the web framework
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from ..manager import BatchManager

logger = logging.getLogger("reliable_imports_async")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointContext(LogMethods):
    """What a hook is handed: who asks, with which request, and the manager.

    Attributes:
        manager: The manager behind the API.
        user_id: Who asks; in `after_batch_complete` who created the batch. None is anonymous.
        request: The Starlette request; None where there is none (`after_batch_complete`).
        headers: The request's headers; empty without a request.
        log: The lines logged so far; they are stored with the batch once it is known.
    """

    manager: "BatchManager"
    user_id: str | None = None
    request: "Request | None" = None
    headers: Mapping[str, str] = field(default_factory=dict)
    log: LogBuffer = field(default_factory=LogBuffer)

    def _write(self, level: LogLevel, message: str, details: Mapping[str, Any]) -> None:
        self.log.add(level, message, details)
        logger.log(LEVELS[level], "%s", self.log.redact(message))


class BaseEndpoint(EndpointHooks):
    """Hooks of the REST API for one batch type.

    ``class CustomerDataEndpoint(BaseEndpoint)`` belongs to batch type ``customer_data``. Every
    method is optional, and may be ``def`` or ``async def``. A hook refuses by raising ValueError
    (answered with 422 and its message) or Starlette's HTTPException (answered as it says).

    Attributes:
        batch_type: The batch type; derived from the class name when empty.
    """

    batch_type: ClassVar[str] = ""

    def authorize(self, ctx: EndpointContext, action: str, batch: ImportBatch | None) -> Any:
        """Whether the caller may do this; a falsy answer is 403.

        Args:
            action: "create", "view", "process", "reprocess", "pause", "resume", "cancel" or "edit".
                Whatever changes records is "edit"; a corrected file is "reprocess" as well.
            batch: The batch in question; None for "create", which includes that it is processed.
        """
        return True

    def visible_batches(self, ctx: EndpointContext) -> Any:
        """Which batches of this type the caller may see: True all, False none, or `Visible`.

        What is not visible is left out of lists, answered with 404 when asked for by id, and not
        taken for the same file. Reprocessings are visible with the root of their lineage.
        """
        return True

    def before_create_batch(self, request_data: Any, ctx: EndpointContext) -> Any:
        """Check, change or refuse a batch before it is created.

        For an upload it runs before the body is read, and `request_data.items` is None.

        Args:
            request_data: Has `batch_type`, `items`, `metadata`, `process` and `strict`, which may
                be changed; or return another object of its kind.
        """
        return None

    def after_create_batch(self, batch_id: UUID, request_data: Any, ctx: EndpointContext) -> Any:
        """Run after the batch was created, before it is processed."""
        return None

    def before_process(self, batch_id: UUID, ctx: EndpointContext) -> Any:
        """Check or refuse before a batch is processed or reprocessed on request."""
        return None

    def after_batch_complete(
        self, batch_id: UUID, summary: BatchSummary, ctx: EndpointContext
    ) -> Any:
        """Run after the batch has finished, at least once, in whatever process finished it.

        `ctx.request` is None and `ctx.user_id` who created the batch. What it raises is logged.
        """
        return None

    def extra_routes(self) -> "Sequence[BaseRoute]":
        """Starlette routes of the application's own, served below the API."""
        return ()

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether a subclass defines this hook."""
        return getattr(cls, hook) is not getattr(BaseEndpoint, hook)

    @classmethod
    def _check(cls) -> None:
        if inspect.iscoroutinefunction(cls.extra_routes):
            raise NotAnEndpoint(
                f"{cls.__module__}.{cls.__qualname__}.extra_routes must be a plain method.",
                hint="return a list of routes.",
            )

    def _hooks(self) -> Mapping[OutboxHook, Hook]:
        hooks: dict[OutboxHook, Hook] = {}
        if self.overrides("after_create_batch"):
            hooks[OutboxHook.AFTER_CREATE] = self._run_after_create
        if self.overrides("after_batch_complete"):
            hooks[OutboxHook.ENDPOINT_AFTER_COMPLETE] = self._run_after_complete
        return hooks

    async def _run_after_create(self, call: HookCall) -> None:
        data = SimpleNamespace(**{**call.details.get("data", {}), "items": None})
        await answer(self.after_create_batch(call.batch.id, data, _context(call)))

    async def _run_after_complete(self, call: HookCall) -> None:
        await answer(self.after_batch_complete(call.batch.id, call.summary, _context(call)))


_NO_HOOKS = BaseEndpoint()


def endpoint_of(registry: Registry, batch_type: str) -> BaseEndpoint:
    """The endpoint of a batch type; one that hooks nothing where none is registered."""
    endpoint = registry.endpoint(batch_type)
    return endpoint if isinstance(endpoint, BaseEndpoint) else _NO_HOOKS


def endpoints_of(registry: Registry) -> list[BaseEndpoint]:
    """The registered endpoints, in the order of their batch types."""
    return [endpoint for endpoint in registry.endpoints if isinstance(endpoint, BaseEndpoint)]


def _context(call: HookCall) -> EndpointContext:
    """The context of a hook that no request waits for."""
    return EndpointContext(manager=call.manager, user_id=call.batch.created_by, log=call.log)


async def answer(result: Any) -> Any:
    """What a hook returned, awaited when it is async."""
    return await result if inspect.isawaitable(result) else result
