"""A visit to a page, and what a page is."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...manager import BatchManager
from ...models import ImportBatch
from ..http.authentication import identity_of, user_of
from ..http.call import Call
from ..http.cookies import FORM_COOKIE, cookie_name
from ..http.service import Service

ACTIONS = ("process", "reprocess", "pause", "resume", "cancel", "edit")


class Refused(Exception):
    """A request that is answered with an error page.

    Attributes:
        status: The status of the response.
        message: The text of the page.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Visit:
    """One request for a page.

    Attributes:
        call: The request, its user, and the manager.
        browser: The value of the form cookie, which identifies the browser.
        session: The value of the session cookie; empty without one.
        new_session: A session cookie to set; an empty one deletes the cookie.
        may_create: Whether the visitor may create batches of any type.
    """

    call: Call
    browser: str
    session: str
    new_session: str | None = None
    may_create: bool = False

    @classmethod
    async def begin(cls, request: Request, service: Service) -> Self:
        """Begin a visit: authenticate by header or by the session cookie."""
        authenticator = service.authenticator
        cookie = request.cookies.get(cookie_name(request), "") if authenticator.signs_in else ""
        user = user_of(request)  # by header; for GET requests, by the cookie as well
        if user is None and cookie:
            user = identity_of(await authenticator.by_session(request))
        call = Call(request, service, user)
        browser = request.cookies.get(cookie_name(request, FORM_COOKIE))
        return cls(call, browser or secrets.token_urlsafe(24), cookie)

    @property
    def service(self) -> Service:
        """The parts of the API that outlive a request."""
        return self.call.service

    @property
    def manager(self) -> BatchManager:
        """The manager behind the pages."""
        return self.call.manager

    @property
    def base(self) -> str:
        """The path prefix of all pages."""
        return f"{self.call.base}/dashboard"

    @property
    def signs_in(self) -> bool:
        """Whether people sign in here, with an API key."""
        return self.service.authenticator.signs_in

    @property
    def needs_sign_in(self) -> bool:
        """Whether the visitor has to sign in first."""
        return self.service.authentication is not None and self.call.user_id is None

    def token(self) -> str:
        """The token that a form of this visitor needs."""
        return self.service.signer.form_token(self._form_session)

    @property
    def _form_session(self) -> str:
        user = self.call.user_id
        return f"{self.browser} {user or ''} {self.session if user else ''}"

    async def form(self, *, files: int = 0) -> FormData:
        """Return the form that was sent, if it was made for this visitor."""
        form = await self.call.request.form(
            max_files=files, max_fields=300, max_part_size=8 * 1_048_576
        )
        token = str(form.get("token", ""))
        if not self.service.signer.is_form_token(token, self._form_session):
            await form.close()
            raise Refused(403, "This form has expired. Open the page again.")
        return form

    def given(self, name: str) -> str | None:
        """A parameter of the query; None if it is missing or empty."""
        return self.call.request.query_params.get(name, "").replace("\x00", "")[:1000] or None

    def number(self, name: str, *, default: int | None = None) -> int | None:
        """A whole number in the query; other text is refused."""
        text = self.given(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Refused(422, f"{name} must be a whole number.")
        return int(text)

    async def may(self, batch: ImportBatch) -> frozenset[str]:
        """What the visitor may do with a batch; pages offer nothing else."""
        return frozenset([each for each in ACTIONS if await self.call.may(each, batch)])

    async def look_up_rights(self) -> None:
        """Find out what every page has to know about the visitor."""
        names = self.manager.registry.batch_types
        self.may_create = not names or any([await self.call.may_create(name) for name in names])

    def done(self, batch: ImportBatch, action: str) -> None:
        """Note in the batch's log what the visitor did."""
        self.call.ctx.info(f"dashboard: {action}", actor=self.call.user_id, batch=batch.id)

    def to(self, path: str) -> Response:
        """Redirect to another page; with 303, so that a reload does not send a form twice."""
        return RedirectResponse(f"{self.base}{path}", 303, {"Cache-Control": "no-store"})


def reason_in(form: FormData) -> str | None:
    """The reason that was typed into a form."""
    return str(form.get("reason", "")).replace("\x00", "").strip()[:1000] or None


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or a form that is sent.

    Attributes:
        method: GET or POST.
        path: Below ``/dashboard``, in Starlette's notation.
        handler: Makes the response.
        public: Whether the page needs no sign-in.
        static: Whether it is a file, the same for everybody.
        takes_file: Whether the form has a file.
    """

    method: str
    path: str
    handler: Handler
    public: bool = False
    static: bool = False
    takes_file: bool = False
