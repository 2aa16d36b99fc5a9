"""One call of the API or the dashboard: the request, its user, and what the user may do and see."""

import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import anyio
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ... import exact_json
from ...errors import BatchNotFound, ItemNotFound, ReliableImportsError
from ...failures import MESSAGE_BYTES
from ...log_buffer import LogBuffer
from ...manager import BatchManager
from ...models import ImportBatch
from ...sanitize import redacted
from ...store.visibility import Visibility, Visible
from ..endpoints import BaseEndpoint, EndpointContext, answer, endpoint_of, endpoints_of
from .authentication import user_of
from .cookies import base_of
from .payloads import LARGEST_NUMBER
from .problems import InvalidRequest
from .service import Service

logger = logging.getLogger("reliable_imports_async")

Model = TypeVar("Model", bound=BaseModel)
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

MOST_PARAMETERS = 100


class Call:
    """What a handler gets.

    Attributes:
        request: The request.
        service: The parts of the API that outlive a request.
        manager: The manager behind the API.
        user_id: The authenticated user; None is anonymous.
        ctx: What the application's hooks get.
    """

    __slots__ = ("_known_root", "_visibility", "ctx", "manager", "request", "service", "user_id")

    def __init__(self, request: Request, service: Service, user_id: str | None = None) -> None:
        self.request = request
        self.service = service
        self.manager: BatchManager = service.manager
        self.user_id = None if service.authentication is None else user_id or user_of(request)
        self._visibility: Visibility | None = None
        self._known_root: ImportBatch | None = None
        self.ctx = EndpointContext(
            manager=self.manager,
            user_id=self.user_id,
            request=request,
            headers=request.headers,
            log=LogBuffer(service.settings.log_level),
        )

    @property
    def batch_id(self) -> UUID:
        """The id of the batch in the path."""
        value: UUID = self.request.path_params["batch_id"]
        return value

    @property
    def item_number(self) -> int:
        """The number of the item in the path; raises `ItemNotFound` for an impossible one."""
        number: int = self.request.path_params["item_number"]
        if not 0 < number <= LARGEST_NUMBER:
            raise ItemNotFound(self.batch_id, number)
        return number

    @property
    def base(self) -> str:
        """The path prefix below which the API is mounted."""
        return base_of(self.request)

    def query(self, model: type[Model]) -> Model:
        """Return the query as a model.

        Raises:
            InvalidRequest: The query does not fit the model, or repeats a parameter.
        """
        pairs = self.request.query_params.multi_items()
        if len(pairs) > MOST_PARAMETERS:
            raise InvalidRequest(f"The query has more than {MOST_PARAMETERS} parameters.")
        counts = Counter(name for name, _ in pairs)
        if repeated := sorted(name for name, count in counts.items() if count > 1):
            raise InvalidRequest(f"Parameters given more than once: {', '.join(repeated)}.")
        try:
            return model.model_validate(dict(pairs))
        except ValidationError as exc:
            raise InvalidRequest.of(exc, "query") from None

    def page(self, limit: int) -> int:
        """How many rows a page has when a client asks for `limit`."""
        return min(limit, self.service.settings.max_page_size)

    def endpoint(self, batch_type: str) -> BaseEndpoint:
        """The application's hooks for a batch type."""
        return endpoint_of(self.manager.registry, batch_type)

    async def batch(self, action: str) -> ImportBatch:
        """Return the batch in the path if the caller may see it and perform this action on it.

        Raises:
            BatchNotFound: The batch does not exist, or the caller may not see it.
            HTTPException: 403, if the caller may not perform the action.
        """
        batch = await self.manager.get_batch(self.batch_id)
        await self.permit(batch, action)
        return batch

    async def permit(self, batch: ImportBatch, action: str) -> None:
        """Check that the caller may see a batch and perform this action on it.

        Raises:
            BatchNotFound: The caller may not see the batch.
            HTTPException: 403, if the caller may not perform the action.
        """
        rule = await self._rule(batch.batch_type)
        if not rule.shows(await self._root(batch)):
            raise BatchNotFound(batch.id)
        await self.require(batch.batch_type, action, batch)

    async def may(self, action: str, batch: ImportBatch) -> bool:
        """Whether the caller may perform this action on a batch that they can see."""
        return await self._allowed(batch.batch_type, action, batch)

    async def may_create(self, batch_type: str) -> bool:
        """Whether the caller may create batches of a type."""
        return await self._allowed(batch_type, "create", None)

    async def _allowed(self, batch_type: str, action: str, batch: ImportBatch | None) -> bool:
        ctx = replace(
            self.ctx, log=LogBuffer(self.service.settings.log_level)
        )  # a question logs nothing
        try:
            async with self.hook():
                return bool(await answer(self.endpoint(batch_type).authorize(ctx, action, batch)))
        except (HTTPException, InvalidRequest):
            return False
        except Exception:
            logger.warning("authorize failed for %r on %s", action, batch_type, exc_info=True)
            return False

    async def visible(self) -> Visibility:
        """Which batches of which types the caller may see."""
        if self._visibility is None:
            registry = self.manager.registry
            names = registry.hooked_types
            types = {name: await self._rule(name) for name in sorted(names)}
            self._visibility = Visibility(types, await self._otherwise(known=False))
        return self._visibility

    async def known_types(self) -> tuple[str, ...]:
        """The registered batch types of which the caller may see or create batches."""
        visible = await self.visible()
        return tuple(
            [
                name
                for name in self.manager.registry.batch_types
                if visible.rule(name).as_rule() or await self.may_create(name)
            ]
        )

    async def _rule(self, batch_type: str) -> Visible:
        """Which batches of a type the caller may see."""
        endpoint = self.endpoint(batch_type)
        if not endpoint.overrides("visible_batches"):
            return await self._otherwise(known=batch_type in self.manager.registry.batch_types)
        async with self.hook():
            return Visible.of(await answer(endpoint.visible_batches(self.ctx)))

    async def _otherwise(self, *, known: bool) -> Visible:
        """The default rule, for a type without an endpoint that defines `visible_batches`.

        A type that this process does not know may have an endpoint in another process that hides
        its batches. With authentication, only their creators see them here.
        """
        rule = self.service.visible_batches
        if rule is not None:
            async with self.hook():
                return Visible.of(await answer(rule(self.ctx)) if callable(rule) else rule)
        endpoints = endpoints_of(self.manager.registry)
        restricted = any(endpoint.overrides("visible_batches") for endpoint in endpoints)
        if known or (self.service.authentication is None and not restricted):
            return Visible.all()
        return Visible(created_by=self.user_id)

    async def _root(self, batch: ImportBatch) -> ImportBatch:
        if batch.root_batch_id == batch.id:
            return batch
        if self._known_root is None or self._known_root.id != batch.root_batch_id:
            try:
                self._known_root = await self.manager.get_batch(batch.root_batch_id)
            except BatchNotFound:  # purged just now
                raise BatchNotFound(batch.id) from None
        return self._known_root

    async def discreet(self, exc: Exception) -> Exception:
        """Return the error, without the id of another batch that the caller may not see."""
        other = getattr(exc, "other_batch_id", None)
        if not isinstance(exc, ReliableImportsError) or other is None:
            return exc
        visible = await self.visible()
        if visible.as_json() is None or await self.manager.visible_among([other], visible):
            return exc
        return exc.unnamed()

    async def without_hidden(self, texts: Sequence[str | None]) -> list[str | None]:
        """Return texts with the ids of batches that the caller may not see replaced."""
        visible = await self.visible()
        if visible.as_json() is None:
            return list(texts)
        named = {UUID(name) for text in texts for name in _ID.findall(text or "")}
        hidden = named - await self.manager.visible_among(sorted(named), visible) if named else ()
        return [text and _ID.sub(partial(_hide, hidden=hidden), text) for text in texts]

    async def require(self, batch_type: str, action: str, batch: ImportBatch | None = None) -> None:
        """Ask the application whether the caller may perform this action.

        Raises:
            HTTPException: 403, if not.
        """
        async with self.hook():
            allowed = await answer(self.endpoint(batch_type).authorize(self.ctx, action, batch))
        if not allowed:
            what = f'batches of type "{batch_type}"' if batch is None else "this batch"
            raise HTTPException(403, f"You are not allowed to {action} {what}.")

    @asynccontextmanager
    async def hook(self) -> AsyncIterator[None]:
        """Run a hook in this block: a ValueError that it raises refuses the request with 422."""
        try:
            yield
        except (HTTPException, InvalidRequest):
            raise
        except ValueError as exc:
            detail = redacted(str(exc), self.ctx.log.redact, MESSAGE_BYTES)
            raise InvalidRequest(detail or "The application refused the request.") from exc

    async def store_log(self, batch_id: UUID) -> None:
        """Store the lines that hooks have logged."""
        if self.ctx.log.lines:
            await self.manager.add_logs(batch_id, self.ctx.log)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Cancel the queries of this block after `read_timeout` seconds."""
        with anyio.fail_after(self.service.settings.read_timeout):
            yield


def _hide(match: re.Match[str], hidden: Collection[UUID]) -> str:
    return "(hidden)" if UUID(match[0]) in hidden else match[0]


def reply(body: Any, status: int = 200, **headers: str) -> Response:
    """Make a response in JSON.

    Args:
        headers: Further headers, with underscores instead of hyphens in their names.
    """
    content = exact_json.write(body, inf_nan_mode="strings", fallback=str)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, given, media_type="application/json")


async def large_reply(body: Any, status: int = 200) -> Response:
    """Make a large response in JSON in a thread, so that other requests do not wait for it."""
    return await to_thread.run_sync(reply, body, status)
