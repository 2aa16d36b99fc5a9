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
from .http.authentication import ApiKeys, Authenticator, OuterUser, Signer
from .http.browser_sessions import BrowserSessions
from .http.middleware import keep_tickets_out_of_access_logs
from .http.service import DefaultVisibility, Service

logger = logging.getLogger("reliable_imports_async")


class APIManager:
    """The REST API and the dashboard for every registered processor, in one Starlette application.

    Args:
        manager: The manager. If it is not open, the API opens and closes it. Register its
            processors and endpoints before the API starts.
        authentication: Authenticates requests: `ApiKeys`, `OuterUser` or your own backend. By
            default the API keys of the settings are used.
        allow_anonymous: Accept all requests if there is no authentication. Otherwise `run` serves
            only this machine, and a mounted API only users whom the application around it has
            authenticated.
        worker: Whether this process works on batches in the background.
        dashboard: Whether the dashboard is served at ``/dashboard``.
        allowed_hosts: The host names that the API answers to; by default those of the settings,
            or all.
        visible_batches: Which batches callers see of types whose endpoint does not define
            `visible_batches`: True, False, a `Visible`, or a function of the `EndpointContext`
            that returns one. By default callers see all batches of registered types, and of other
            types the batches that they have created; without authentication they see all.

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
        visible_batches: DefaultVisibility | None = None,
    ) -> None:
        settings = manager.settings
        if authentication is None and settings.api_keys:
            authentication = ApiKeys.of(settings.api_keys)
        secret = settings.api_secret
        self._service = Service(
            manager=manager,
            authenticator=Authenticator(authentication, BrowserSessions(manager.database)),
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
        """End all event streams; a server calls this before it waits for responses to end."""
        self._service.feed.close()

    @property
    def app(self) -> Starlette:
        """The ASGI application. Its lifespan runs when it is served by itself."""
        if self._app is None:
            self._app = application.build(
                self._service, lambda _app: self.running(), self._hosts or ["*"]
            )
        return self._app

    @asynccontextmanager
    async def running(self, *, allow_anonymous: bool = False) -> AsyncIterator[None]:
        """Open the manager and work in the background while the block runs.

        Args:
            allow_anonymous: Accept all requests if there is no authentication. Otherwise only
                users are accepted whom the application around the API has authenticated.

        Raises:
            ConfigurationError: The API is running already.
        """
        service = self._service
        if service.running:
            raise ConfigurationError(
                "This API is running already.",
                hint="enter api.running() only once; mount_into enters it too.",
            )
        self._define_access(allow_anonymous=allow_anonymous or self._allow_anonymous)
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

    def _define_access(self, *, allow_anonymous: bool) -> None:
        """Refuse anonymous requests unless the application has allowed them."""
        service = self._service
        keep_tickets_out_of_access_logs()
        service.access_defined = self._authentication is not None or allow_anonymous
        service.authenticator.backend = self._authentication
        if not service.access_defined:
            service.authenticator.backend = OuterUser()
            logger.warning(
                "The import API has no authentication. Anonymous requests are refused; only users "
                "whom the application around the API has authenticated are accepted. Pass "
                "authentication=OuterUser() if you want this. Otherwise set "
                "RELIABLE_IMPORTS_API_KEYS, pass another backend, or pass allow_anonymous=True."
            )

    def mount_into(
        self, app: Starlette, prefix: str = "/imports", *, allow_anonymous: bool = False
    ) -> None:
        """Mount the API into a Starlette or FastAPI application, and run it in its lifespan.

        Args:
            app: The application; it must not have started yet.
            prefix: The path below which the API is found.
            allow_anonymous: Accept all requests if there is no authentication. Note that the
                dependencies of a FastAPI application do not protect what is mounted into it.

        Raises:
            ConfigurationError: The prefix is not a path.
        """
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ConfigurationError(
                f"{prefix!r} is not a path prefix.",
                hint="write it with a leading slash and without a trailing one: '/imports'.",
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
            allow_anonymous: Also listen beyond this machine without authentication.
            options: Further options of ``uvicorn.Config``.

        Raises:
            ConfigurationError: Other machines could use the API without authentication.
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
        """Return the application if it may listen on this address, and set its host names."""
        known, allowed = self._authentication is not None, allow_anonymous or self._allow_anonymous
        server.refuse_open_door(host, authenticated=known, allow_anonymous=allowed)
        self._allow_anonymous = True  # this machine only, or the caller allows it
        if not self._hosts and server.is_loopback(host):
            # Prevents DNS rebinding: another site could resolve its own name to this machine.
            self._hosts = ("localhost", "127.0.0.1", "[::1]", "::1", host)
        return self.app
