"""The parts of the API that outlive a request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.authentication import AuthenticationBackend

from ..manager import BatchManager
from ..settings import Settings
from .authentication import Signer
from .background import Background
from .feed import ProgressFeed

Describe = Callable[[str], dict[str, Any]]


@dataclass(slots=True)
class Service:
    """What handlers share.

    Attributes:
        manager: The manager behind the API.
        authentication: Finds out who asks; None lets everybody in.
        signer: Signs cookies and tickets.
        background: Processes batches after the answer.
        feed: Tells clients how batches get on.
        document: Makes the API document, given where the API is mounted.
        dashboard: Whether the dashboard is served.
        running: Whether the lifespan has been entered.
    """

    manager: BatchManager
    authentication: AuthenticationBackend | None
    signer: Signer
    background: Background
    feed: ProgressFeed
    document: Describe = field(default=lambda _base: {})
    dashboard: bool = field(default=True)
    running: bool = field(default=False)

    @property
    def settings(self) -> Settings:
        """The manager's settings."""
        return self.manager.settings
