"""A visit to a page, and what a page is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ...models import ImportBatch

if TYPE_CHECKING:  # the API serves the dashboard, not the other way round
    from ...manager import BatchManager
    from ..http.call import Call


ACTIONS = ("process", "reprocess", "pause", "resume", "cancel", "edit")


class Refused(Exception):
    """A request that is answered with a page that says why not.

    Attributes:
        status: The status of the answer.
        message: What to tell.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Visit:
    """One request for a page.

    Attributes:
        call: The request, who asks, the manager.
        browser: Tells this browser from others; forms are bound to it.
        secured: Whether it is asked who somebody is.
        signs_in: Whether people sign in here, with a key.
        token: Makes the token that a form needs.
        is_token: Whether a token was made for this session.
        sign_in: The user of an API key, or None.
        begin_session: Begins a session for a user with this key; the cookie's value.
        end_session: Ends the session that the browser has.
        new_session: A session cookie to set; an empty one is deleted.
        may_create: Whether the visitor may create batches of any type.
    """

    call: "Call"
    browser: str
    secured: bool
    signs_in: bool
    token: Callable[[], str]
    is_token: Callable[[str], bool]
    sign_in: Callable[[str], Awaitable[str | None]]
    begin_session: Callable[[str, str], Awaitable[str]]
    end_session: Callable[[], Awaitable[None]]
    new_session: str | None = field(default=None)
    may_create: bool = field(default=False)

    @property
    def base(self) -> str:
        """What the paths of all pages start with."""
        return f"{self.call.base}/dashboard"

    @property
    def manager(self) -> "BatchManager":
        """The manager behind the pages."""
        return self.call.manager

    def given(self, name: str) -> str | None:
        """A value of the query; None for none and an empty one."""
        return self.call.request.query_params.get(name, "").replace("\x00", "")[:1000] or None

    def number(self, name: str, *, default: int | None = None) -> int | None:
        """A whole number of the query; refuses what is none."""
        text = self.given(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Refused(422, f"{name} must be a whole number.")
        return int(text)

    async def form(self, *, files: int = 0) -> FormData:
        """The form that was sent; refuses one that was not made for this session."""
        form = await self.call.request.form(
            max_files=files, max_fields=300, max_part_size=8 * 1_048_576
        )
        if not self.is_token(str(form.get("token", ""))):
            await form.close()
            raise Refused(403, "This form is not from this session any more. Open it once more.")
        return form

    async def may(self, batch: ImportBatch) -> frozenset[str]:
        """What the visitor may do with a batch: pages offer nothing else."""
        return frozenset([one for one in ACTIONS if await self.call.may(one, batch)])

    async def look_up_rights(self) -> None:
        """Find out what every page has to know about the visitor."""
        names = self.manager.registry.batch_types
        self.may_create = not names or any([await self.call.may_create(one) for one in names])

    def done(self, batch: ImportBatch, verb: str) -> None:
        """Note in the batch's log what somebody did here."""
        self.call.ctx.info(f"dashboard: {verb}", actor=self.call.user_id, batch=batch.id)

    def to(self, path: str) -> Response:
        """Go to another page; 303, so that a reload sends nothing twice."""
        return RedirectResponse(f"{self.base}{path}", 303, {"Cache-Control": "no-store"})


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page, or one form that is sent.

    Attributes:
        method: GET or POST.
        path: Below ``/dashboard``, as Starlette writes it.
        handler: Answers it.
        public: Whether nobody has to sign in for it.
        static: Whether it is a file that is the same for everybody.
        takes_file: Whether a file may be sent.
    """

    method: str
    path: str
    handler: Handler
    public: bool = False
    static: bool = False
    takes_file: bool = False
