"""APIManager: the REST API of a manager, served alone or inside another application."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend

from ..errors import ConfigurationError
from ..manager import BatchManager
from ..settings import Settings
from . import application, server
from .background import Background
from .events.feed import ProgressFeed
from .http.authentication import ApiKeys, OuterUser, Signer
from .http.middleware import keep_tickets_out_of_access_logs
from .http.service import Service, VisibleByDefault

logger = logging.getLogger("reliable_imports_async")


class APIManager:
    """Endpoints for every registered processor, in one Starlette application.

    Args:
        manager: The manager; when it is not open, the API opens and closes it. Register its
            processors and endpoints before the API starts.
        authentication: Finds out who asks: `ApiKeys`, `OuterUser` or a backend of your own. By
            default the API keys of the settings.
        allow_anonymous: Without authentication, let everybody in and do everything. Otherwise
            `run` serves only this machine, and a mounted API only users whom the application
            around it has authenticated.
        worker: Whether this process works on batches in the background.
        dashboard: Whether the dashboard is served at ``/dashboard``.
        allowed_hosts: The host names it answers to; by default those of the settings, or all.
        visible_batches: What callers see of batch types whose endpoint does not define
            `visible_batches`: True, False, a `Visible`, or a function of the `EndpointContext`
            that returns one. By default all batches of registered types, and of other types those
            that the caller has created; all of them where nobody is asked who they are.

    Raises:
        ConfigurationError: The secret is too short, or an API key is malformed.
    """

    def __init__(
        self,
        manager: BatchManager,
        *,
        authentication: AuthenticationBackend | None = None,
        allow_anonymous: bool = False,
        worker: bool = True,
        dashboard: bool = True,
        allowed_hosts: Sequence[str] | None = None,
        visible_batches: VisibleByDefault | None = None,
    ) -> None:
        settings = manager.settings
        if authentication is None and settings.api_keys:
            authentication = ApiKeys.of(settings.api_keys)
        secret = settings.api_secret
        self._service = Service(
            manager=manager,
            authentication=authentication,
            signer=Signer(None if secret is None else secret.get_secret_value()),
            background=Background(manager, enabled=worker),
            feed=ProgressFeed(manager),
            dashboard=dashboard,
            visible_batches=visible_batches,
        )
        self._authentication = authentication
        self._allow_anonymous = allow_anonymous
        self._hosts = tuple(allowed_hosts or settings.allowed_hosts)
        self._app: Starlette | None = None

    @property
    def manager(self) -> BatchManager:
        """The manager behind the API."""
        return self._service.manager

    @property
    def settings(self) -> Settings:
        """The manager's settings."""
        return self._service.settings

    def end_streams(self) -> None:
        """End all event streams; a server calls this before it waits for answers to end."""
        self._service.feed.close()

    @property
    def app(self) -> Starlette:
        """The ASGI application; serving it by itself runs its lifespan."""
        if self._app is None:
            self._app = application.build(
                self._service, lambda _app: self.running(), self._hosts or ["*"]
            )
        return self._app

    @asynccontextmanager
    async def running(self, *, allow_anonymous: bool = False) -> AsyncIterator[None]:
        """Open the manager and work in the background while the block runs.

        Args:
            allow_anonymous: Let everybody in where no authentication is set up. Otherwise only
                users come in whom an application around the API has authenticated.

        Raises:
            ConfigurationError: It runs already.
        """
        service = self._service
        if service.running:
            raise ConfigurationError(
                "This API runs already.", hint="enter api.running() once; mount_into does so too."
            )
        self._close_the_door(allow_anonymous=allow_anonymous or self._allow_anonymous)
        async with AsyncExitStack() as stack:
            if not service.manager.is_open:
                await stack.enter_async_context(service.manager)
            application.add_extra_routes(
                self.app, service.manager.registry, dashboard=service.dashboard
            )
            await stack.enter_async_context(service.background.running())
            await stack.enter_async_context(service.feed)
            service.running = True
            try:
                yield
            finally:
                service.running = False

    def _close_the_door(self, *, allow_anonymous: bool) -> None:
        """Let nobody in unasked, unless that is meant."""
        service = self._service
        keep_tickets_out_of_access_logs()
        service.asked_for = self._authentication is not None or allow_anonymous
        service.authentication = self._authentication
        if not service.asked_for:
            service.authentication = OuterUser()
            logger.warning(
                "The import API has no authentication: anonymous requests are refused, and only "
                "users whom the application around it has authenticated come in. Say "
                "authentication=OuterUser() if that is meant; otherwise set "
                "RELIABLE_IMPORTS_API_KEYS, pass another authentication, or allow_anonymous=True."
            )

    def mount_into(
        self, app: Starlette, prefix: str = "/imports", *, allow_anonymous: bool = False
    ) -> None:
        """Mount the API into a Starlette or FastAPI application, and run it in its lifespan.

        Args:
            app: The application; it must not have started yet.
            prefix: The path below which the API is found.
            allow_anonymous: Let everybody in where no authentication is set up. Dependencies of a
                FastAPI application do not guard what is mounted into it.

        Raises:
            ConfigurationError: The prefix is no path.
        """
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ConfigurationError(
                f"{prefix!r} is no prefix.", hint="write it with a leading slash only: '/imports'."
            )
        app.mount(prefix, self.app)
        outer = app.router.lifespan_context

        @asynccontextmanager
        async def both(application: Any) -> AsyncIterator[Any]:
            async with (
                self.running(allow_anonymous=allow_anonymous),
                outer(application) as state,
            ):
                yield state

        app.router.lifespan_context = both

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        allow_anonymous: bool = False,
        **options: Any,
    ) -> None:
        """Serve the API until SIGINT or SIGTERM.

        Args:
            host: The address to listen on.
            port: The port.
            allow_anonymous: Listen beyond this machine although nobody is asked who they are.
            options: Further options of ``uvicorn.Config``.

        Raises:
            ConfigurationError: It would be open to everybody.
        """
        server.run(
            self._prepared(host, allow_anonymous=allow_anonymous),
            self.settings,
            host=host,
            port=port,
            end_streams=self.end_streams,
            **options,
        )

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        allow_anonymous: bool = False,
        **options: Any,
    ) -> None:
        """The same as `run`, in an event loop that runs already."""
        app = self._prepared(host, allow_anonymous=allow_anonymous)
        config = server.configuration(app, self.settings, host=host, port=port, **options)
        await server.Server(config, self.end_streams).serve()

    def _prepared(self, host: str, *, allow_anonymous: bool) -> Starlette:
        """The application, once it may listen there; under which names is known then."""
        known, allowed = self._authentication is not None, allow_anonymous or self._allow_anonymous
        server.refuse_open_door(host, authenticated=known, allow_anonymous=allowed)
        self._allow_anonymous = True  # to this machine, or by the caller's word
        if not self._hosts and server.is_loopback(host):
            # Another site could make a browser talk to us under a name of its own.
            self._hosts = ("localhost", "127.0.0.1", "[::1]", "::1", host)
        return self.app
