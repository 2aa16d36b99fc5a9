"""The server behind `APIManager.run`: uvicorn, with limits for clients that are slow or many."""

import copy
import ipaddress
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG

from ..errors import ConfigurationError
from ..settings import Settings
from .connections import bounded

if sys.platform != "win32":
    import resource

DESCRIPTORS_FOR_OTHERS = 256  # the pool, files, the loop's own


def refuse_open_door(host: str, *, authenticated: bool, allow_anonymous: bool) -> None:
    """Refuse to serve everybody on the network without asking who they are.

    Args:
        host: The address to listen on.
        authenticated: Whether API keys or an authentication backend are set up.
        allow_anonymous: Whether the caller has said that this is meant.

    Raises:
        ConfigurationError: The address is not a loopback one, and nobody would be asked.
    """
    if authenticated or allow_anonymous or is_loopback(host):
        return
    raise ConfigurationError(
        f"On {host or 'all addresses'} everybody who can reach this machine could import data: no "
        "authentication is set up.",
        hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes one) or pass "
        "an authentication backend; or listen on 127.0.0.1; or, if access is controlled elsewhere, "
        "pass allow_anonymous=True.",
        cli_hint="set RELIABLE_IMPORTS_API_KEYS (`reliable-imports api-key` makes one); or listen "
        "on 127.0.0.1; or, if access is controlled elsewhere, add --allow-anonymous.",
        web_hint="",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or host name."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback_address(str(place[0])) for *_, place in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Server(uvicorn.Server):
    """uvicorn's server; it ends event streams before it waits for responses to end.

    Args:
        config: What `configuration` makes.
        end_streams: Ends all event streams.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, end the streams, let other requests finish."""
        self._end_streams()
        await super().shutdown(sockets)


def configuration(
    app: ASGIApp, settings: Settings, *, host: str, port: int, **options: Any
) -> uvicorn.Config:
    """How the API is served.

    Args:
        app: What is served; its lifespan has to work.
        settings: The limits.
        host: The address to listen on.
        port: The port; 0 for any that is free.
        options: Further ones of ``uvicorn.Config``; they win.
    """
    given: dict[str, Any] = {
        "http": bounded(settings.header_timeout, settings.send_timeout),
        "ws": "none",
        "lifespan": "on",
        "limit_concurrency": connections(settings.max_connections),
        "timeout_graceful_shutdown": settings.shutdown_timeout,
        "server_header": False,
        "log_config": _log_config(),
    }
    return uvicorn.Config(app, **(given | {"host": host, "port": port} | options))


def run(
    app: ASGIApp,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    end_streams: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM; see `configuration` for the arguments.

    Args:
        end_streams: Ends all event streams; called before the server waits for responses.
    """
    config = configuration(app, settings, host=host, port=port, **options)
    with suppress(KeyboardInterrupt):  # raised again once all has come to its end
        Server(config, end_streams).run()


def connections(wanted: int) -> int:
    """How many connections there may be: as many as wanted, if the system allows the files."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + DESCRIPTORS_FOR_OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        return max(wanted + allowed - needed, 10)
    return wanted


def _log_config() -> dict[str, Any]:
    """uvicorn's own, with the request's id in each line about a request."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"request": {"()": f"{__package__}.receiving.RequestIdFilter"}}
    config["handlers"]["access"]["filters"] = ["request"]
    config["formatters"]["access"]["fmt"] += " %(request_id)s"
    return config
