"""The REST API: one route table for every registered processor, mounted in any ASGI server."""

from ..endpoints import BaseEndpoint, EndpointContext
from .authentication import ApiKeys, OuterUser
from .manager import APIManager
from .progress import progress_response

__all__ = [
    "APIManager",
    "ApiKeys",
    "BaseEndpoint",
    "EndpointContext",
    "OuterUser",
    "progress_response",
]
