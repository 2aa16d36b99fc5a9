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
from .authentication import Browsers, OuterUser, Signer

Describe = Callable[[str], dict[str, Any]]
VisibleByDefault = Callable[[EndpointContext], Any] | Visible | bool


@dataclass(slots=True)
class Service:
    """What handlers share.

    Attributes:
        manager: The manager behind the API.
        authentication: Finds out who asks; None lets everybody in.
        signer: Signs forms.
        background: Processes batches after the answer.
        feed: Tells clients how batches get on.
        document: Makes the API document, given where the API is mounted.
        dashboard: Whether the dashboard is served.
        visible_batches: What callers see of batch types whose endpoint does not say.
        asked_for: Whether somebody has said who may come in.
        running: Whether the lifespan has been entered.
    """

    manager: BatchManager
    authentication: AuthenticationBackend | None
    signer: Signer
    background: Background
    feed: ProgressFeed
    document: Describe = field(default=lambda _base: {})
    dashboard: bool = field(default=True)
    visible_batches: VisibleByDefault | None = field(default=None)
    asked_for: bool = field(default=True)
    running: bool = field(default=False)

    @property
    def browsers(self) -> Browsers:
        """Finds out who asks, browsers included."""
        return Browsers(self)

    @property
    def signs_in(self) -> bool:
        """Whether people sign in here, and not to an application around the API."""
        return self.authentication is not None and not isinstance(self.authentication, OuterUser)

    @property
    def settings(self) -> Settings:
        """The manager's settings."""
        return self.manager.settings
