"""The parts of the API that outlive a request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.authentication import AuthenticationBackend

from ...manager import BatchManager
from ...settings import Settings
from ...store.visibility import Visible
from ..background import Background
from ..endpoints import EndpointContext
from ..events.feed import ProgressFeed
from .authentication import Authenticator, Signer

DefaultVisibility = Callable[[EndpointContext], Any] | Visible | bool


@dataclass(slots=True, kw_only=True)
class Service:
    """What handlers share.

    Attributes:
        manager: The manager behind the API.
        authenticator: Authenticates requests and keeps the sessions of browsers.
        signer: Signs forms.
        background: Processes batches after the response.
        feed: Tells clients about the progress of batches.
        document: Makes the OpenAPI document, given the path prefix of the API.
        dashboard: Whether the dashboard is served.
        visible_batches: Which batches callers see of types whose endpoint does not define it.
        access_defined: Whether the application has defined who may use the API.
        running: Whether the lifespan has been entered.
    """

    manager: BatchManager
    authenticator: Authenticator
    signer: Signer
    background: Background
    feed: ProgressFeed
    dashboard: bool
    visible_batches: DefaultVisibility | None = None
    document: Callable[[str], dict[str, Any]] = field(default=lambda _base: {})
    access_defined: bool = True
    running: bool = False

    @property
    def authentication(self) -> AuthenticationBackend | None:
        """The configured backend; None lets everybody in."""
        return self.authenticator.backend

    @property
    def settings(self) -> Settings:
        """The manager's settings."""
        return self.manager.settings
