"""One call of the API: the request, who asks, and the batch it is about."""

import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import anyio
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ... import exact_json
from ...errors import BatchNotFound, ReliableImportsError
from ...failures import MESSAGE_BYTES
from ...log_buffer import LogBuffer
from ...manager import BatchManager
from ...models import ImportBatch
from ...sanitize import redacted
from ...store.visibility import Visibility, Visible
from ..endpoints import BaseEndpoint, EndpointContext, answer, endpoint_of, endpoints_of
from .authentication import base_of, user_of
from .payloads import CreateBatch
from .problems import InvalidRequest

if TYPE_CHECKING:
    from .service import Service

logger = logging.getLogger("reliable_imports_async")

Model = TypeVar("Model", bound=BaseModel)
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

MOST_PARAMETERS = 100


class Call:
    """What a handler is handed.

    Attributes:
        request: The request.
        service: The parts of the API that outlive a request.
        manager: The manager behind it.
        user_id: Who asks; None is anonymous.
    """

    __slots__ = ("_known_root", "_visibility", "ctx", "manager", "request", "service", "user_id")

    def __init__(self, request: Request, service: "Service", user_id: str | None = None) -> None:
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
        """The batch that the path names."""
        value: UUID = self.request.path_params["batch_id"]
        return value

    @property
    def base(self) -> str:
        """What the API's paths start with: where it is mounted."""
        return base_of(self.request)

    def query(self, model: type[Model]) -> Model:
        """The query as a model.

        Raises:
            InvalidRequest: It does not fit, or names a thing twice.
        """
        pairs = self.request.query_params.multi_items()
        if len(pairs) > MOST_PARAMETERS:
            raise InvalidRequest(f"More than {MOST_PARAMETERS} parameters.")
        counts = Counter(name for name, _ in pairs)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise InvalidRequest(f"Given more than once: {', '.join(twice)}.")
        try:
            return model.model_validate(dict(pairs))
        except ValidationError as exc:
            raise InvalidRequest.of(exc, "query") from None

    def page(self, limit: int) -> int:
        """How many rows a page has."""
        return min(limit, self.service.settings.max_page_size)

    def endpoint(self, batch_type: str) -> BaseEndpoint:
        """The application's hooks for a batch type."""
        return endpoint_of(self.manager.registry, batch_type)

    async def batch(self, action: str) -> ImportBatch:
        """The batch that the path names, once the caller may do this with it.

        Raises:
            BatchNotFound: There is none, or the caller may not see it.
            HTTPException: 403.
        """
        batch = await self.manager.get_batch(self.batch_id)
        await self.permit(batch, action)
        return batch

    async def permit(self, batch: ImportBatch, action: str) -> None:
        """Ask the application whether the caller may see a batch, and do this with it.

        Raises:
            BatchNotFound: The caller may not see it.
            HTTPException: 403.
        """
        rule = await self._rule(batch.batch_type)
        if not rule.shows(await self._root(batch)):
            raise BatchNotFound(batch.id)
        await self.require(self.endpoint(batch.batch_type), action, batch)

    async def may(self, action: str, batch: ImportBatch) -> bool:
        """Whether the caller, who sees a batch, may do this with it."""
        return await self._allowed(batch.batch_type, action, batch)

    async def may_create(self, batch_type: str) -> bool:
        """Whether the caller may create batches of a type."""
        return await self._allowed(batch_type, "create", None)

    async def _allowed(self, batch_type: str, action: str, batch: ImportBatch | None) -> bool:
        ctx = replace(self.ctx, log=LogBuffer(self.service.settings.log_level))  # nobody asked yet
        try:
            async with self.hook():
                return bool(await answer(self.endpoint(batch_type).authorize(ctx, action, batch)))
        except (HTTPException, InvalidRequest):
            return False
        except Exception:
            logger.warning("authorize failed for %r of %s", action, batch_type, exc_info=True)
            return False

    async def visible(self) -> Visibility:
        """What the application lets this caller see."""
        if self._visibility is None:
            registry = self.manager.registry
            names = registry.hooked_types
            types = {name: await self._rule(name) for name in sorted(names)}
            self._visibility = Visibility(types, await self._otherwise(known=False))
        return self._visibility

    async def known_types(self) -> tuple[str, ...]:
        """The registered batch types of which the caller may see or create anything."""
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
        """The rule of a type whose endpoint says nothing, or is not here.

        A type of which this process knows nothing may have an endpoint elsewhere that hides its
        batches. So only their creators see them, if anybody is asked who they are.
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
        """An error that names no batch which the caller may not see."""
        named = getattr(exc, "other_batch_id", None)
        if not isinstance(exc, ReliableImportsError) or named is None:
            return exc
        visible = await self.visible()
        if visible.as_json() is None or await self.manager.visible_among([named], visible):
            return exc
        return exc.unnamed()

    async def without_hidden(self, texts: Sequence[str | None]) -> list[str | None]:
        """Texts in which other batches are named, those the caller may not see left out."""
        visible = await self.visible()
        if visible.as_json() is None:
            return list(texts)
        named = {UUID(name) for text in texts for name in _ID.findall(text or "")}
        hidden = named - await self.manager.visible_among(sorted(named), visible) if named else ()
        return [text and _ID.sub(partial(_hide, hidden=hidden), text) for text in texts]

    async def require(
        self, endpoint: BaseEndpoint, action: str, batch: ImportBatch | None = None
    ) -> None:
        """Ask the application whether the caller may do this; 403 when not."""
        async with self.hook():
            allowed = await answer(endpoint.authorize(self.ctx, action, batch))
        if not allowed:
            raise HTTPException(403, f"You may not {action} this.")

    @asynccontextmanager
    async def hook(self) -> AsyncIterator[None]:
        """Around a hook: the ValueError it raises is a refusal."""
        try:
            yield
        except (HTTPException, InvalidRequest):
            raise
        except ValueError as exc:
            detail = redacted(str(exc), self.ctx.log.redact, MESSAGE_BYTES)
            raise InvalidRequest(detail or "It was refused.") from exc

    async def about_to_create(self, data: CreateBatch) -> CreateBatch:
        """A batch as the application's hook wants it created; the hook may refuse it."""
        endpoint = self.endpoint(data.batch_type)
        async with self.hook():
            changed = await answer(endpoint.before_create_batch(data, self.ctx))
        return data if changed is None else changed

    async def about_to_upload(self, batch_type: str) -> CreateBatch:
        """The same for a file that is only stored for now."""
        return await self.about_to_create(CreateBatch(batch_type=batch_type, process=False))

    def after_create(self, endpoint: BaseEndpoint, data: CreateBatch) -> dict[str, Any] | None:
        """What after_create_batch is told if this process dies before it; None: there is none."""
        if not endpoint.overrides("after_create_batch"):
            return None
        names = [name for name in CreateBatch.model_fields if name != "items"]
        return {name: getattr(data, name, None) for name in names}

    async def created(self, endpoint: BaseEndpoint, batch_id: UUID, data: CreateBatch) -> None:
        """Run after_create_batch, unless the batch is an earlier one; and store what was logged."""

        async def hook() -> None:
            await answer(endpoint.after_create_batch(batch_id, data, self.ctx))

        async with self.hook():
            if endpoint.overrides("after_create_batch"):
                await self.manager.run_after_create(batch_id, hook)
        await self.store_log(batch_id)

    async def store_log(self, batch_id: UUID) -> None:
        """Store what hooks have logged."""
        if self.ctx.log.lines:
            await self.manager.add_logs(batch_id, self.ctx.log)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Give a slow query up; asyncpg then cancels it on the server too."""
        with anyio.fail_after(self.service.settings.read_timeout):
            yield


def _hide(found: re.Match[str], hidden: Collection[UUID]) -> str:
    return "(hidden)" if UUID(found[0]) in hidden else found[0]


async def large_reply(body: Any, status: int = 200) -> Response:
    """The same for what may be large: in a thread, so that everybody else is answered meanwhile."""
    return await to_thread.run_sync(reply, body, status)


def reply(body: Any, status: int = 200, **headers: str) -> Response:
    """An answer in JSON; the underscores of header names stand for hyphens."""
    content = exact_json.write(body, inf_nan_mode="strings", fallback=str)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, given, media_type="application/json")
