"""One call of the API: the request, who asks, and the batch it is about."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import anyio
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .. import exact_json
from ..context import LogBuffer
from ..endpoints import BaseEndpoint, EndpointContext, answer
from ..errors import BatchNotFound
from ..judgement import MESSAGE_BYTES
from ..manager import BatchManager
from ..models import ImportBatch, Visible
from ..safe_text import redacted
from .authentication import user_of
from .payloads import CreateBatch
from .problems import InvalidRequest

if TYPE_CHECKING:
    from .service import Service

Model = TypeVar("Model", bound=BaseModel)

MOST_PARAMETERS = 100


class Call:
    """What a handler is handed.

    Attributes:
        request: The request.
        service: The parts of the API that outlive a request.
        manager: The manager behind it.
        user_id: Who asks; None is anonymous.
    """

    __slots__ = ("ctx", "manager", "request", "service", "user_id")

    def __init__(self, request: Request, service: "Service", user_id: str | None = None) -> None:
        self.request = request
        self.service = service
        self.manager: BatchManager = service.manager
        self.user_id = user_id or user_of(request)
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
        return str(self.request.scope.get("root_path", "")).rstrip("/")

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
        return self.manager.registry.endpoint(batch_type)

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
        endpoint = self.endpoint(batch.batch_type)
        async with self.hook():
            visible = await answer(endpoint.visible_batches(self.ctx))
        if not (visible.shows(batch) if isinstance(visible, Visible) else visible):
            raise BatchNotFound(self.batch_id)
        await self.require(endpoint, action, batch)

    async def visible(self) -> dict[str, Visible | bool]:
        """What the application lets this caller see, by batch type."""
        visible: dict[str, Visible | bool] = {}
        for name in self.manager.registry.batch_types:
            endpoint = self.endpoint(name)
            if endpoint.overrides("visible_batches"):
                async with self.hook():
                    allowed = await answer(endpoint.visible_batches(self.ctx))
                visible[name] = allowed if isinstance(allowed, Visible) else bool(allowed)
        return visible

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

    async def store_log(self, batch_id: UUID) -> None:
        """Store what hooks have logged."""
        if self.ctx.log.lines:
            await self.manager.add_logs(batch_id, self.ctx.log)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Give a slow query up; asyncpg then cancels it on the server too."""
        with anyio.fail_after(self.service.settings.read_timeout):
            yield


async def large_reply(body: Any, status: int = 200) -> Response:
    """The same for what may be large: in a thread, so that everybody else is answered meanwhile."""
    return await to_thread.run_sync(reply, body, status)


def reply(body: Any, status: int = 200, **headers: str) -> Response:
    """An answer in JSON; the underscores of header names stand for hyphens."""
    content = exact_json.write(body, inf_nan_mode="strings", fallback=str)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, given, media_type="application/json")
