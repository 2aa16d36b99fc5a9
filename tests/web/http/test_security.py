"""Who comes in: anonymous access, sessions that end, other sites' pages, headers, tickets in logs."""

import asyncio
import logging

import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from uuid_utils.compat import uuid7

from reliable_imports_async import (
    APIManager,
    BaseEndpoint,
    BatchManager,
    OuterUser,
    Settings,
    Visible,
)
from reliable_imports_async.errors import ConfigurationError

from ...support.keyed_processors import NightlyProcessor, running
from ...support.trying import processor
from ..http_server import PATIENCE, client, serving
from ..reach import (
    OPERATIONS,
    PAGES,
    ApiKeys,
    hash_of,
    look_again_every,
    new_api_key,
    without_ticket,
)
from ..test_access import SAME_SITE, browser, filled, token_in

KEY = new_api_key()
NOBODY = "00000000-0000-7000-8000-000000000000"


async def quiet(item, ctx): ...


class OuterHeader(AuthenticationBackend):
    """An application's own way to know its users."""

    async def authenticate(self, conn):
        name = conn.headers.get("x-user")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


def application(framework, **more):
    return framework(
        middleware=[Middleware(AuthenticationMiddleware, backend=OuterHeader())], **more
    )


class Keys(AuthenticationBackend):
    """A store of keys that changes while the server runs."""

    def __init__(self, **keys):
        self.keys = keys

    async def authenticate(self, conn):
        sent = conn.headers.get("x-api-key", "")
        found = [name for name, key in self.keys.items() if key == sent]
        return (AuthCredentials(["authenticated"]), SimpleUser(found[0])) if found else None


# --- anonymous access


async def refuse():
    raise HTTPException(401)


@pytest.mark.parametrize("way", ["mounted", "protected by dependencies", "running", "lifespan"])
async def test_nobody_comes_in_unasked(dsn, caplog, way):
    manager = BatchManager(dsn)
    manager.registry.register(processor(quiet))
    api, prefix = APIManager(manager), ""
    app = api.app
    if way in ("mounted", "protected by dependencies"):
        app = FastAPI(dependencies=[Depends(refuse)] if way.startswith("protected") else [])
        prefix = "/imports"
        api.mount_into(app, prefix)
    running = api.running() if way == "running" else app.router.lifespan_context(app)
    async with running:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as outside:
            for path in (
                "/api/batches",
                "/api/batch-types",
                "/metrics",
                "/dashboard",
                "/dashboard/upload",
            ):
                assert (await outside.get(prefix + path)).status_code == 401, path
            created = await outside.post(
                f"{prefix}/api/batches", json={"batch_type": "tried", "items": [{}]}
            )
            assert created.status_code == 401
            assert "allow_anonymous=True" in created.json()["detail"]
            assert (await outside.get(f"{prefix}/health")).status_code == 200
        assert [one async for one in manager.list_batches()] == []
    assert "Anonymous requests are refused" in caplog.text


@pytest.mark.parametrize("where", ["constructor", "mount"])
async def test_anonymous_access_is_given_on_request(dsn, caplog, where):
    manager = BatchManager(dsn)
    manager.registry.register(processor(quiet))
    app = application(Starlette)
    if where == "constructor":
        APIManager(manager, allow_anonymous=True).mount_into(app)
    else:
        APIManager(manager).mount_into(app, allow_anonymous=True)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as outside:
            body = {"batch_type": "tried", "items": [{}]}
            created = await outside.post(
                "/imports/api/batches", json=body, headers={"x-user": "ann"}
            )
            assert created.status_code == 202
            assert created.json()["created_by"] is None  # nobody has asked for the outer user
    assert caplog.text == ""


class OwnEndpoint(BaseEndpoint):
    batch_type = "tried"

    def visible_batches(self, ctx):
        return Visible(created_by=ctx.user_id)


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_the_outer_applications_user_is_taken_over(dsn, caplog, framework):
    manager = BatchManager(dsn)
    manager.registry.register(processor(quiet))
    manager.registry.register_endpoint(OwnEndpoint)
    app = application(framework)
    staff = OuterUser(allow=lambda user: user.display_name != "customer")
    APIManager(manager, authentication=staff).mount_into(app, "/imports")
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test/imports"
        ) as outside:

            async def asked(user, method, path, **more):
                headers = {"x-user": user} if user else {}
                return await outside.request(method, path, headers=headers, **more)

            body = {"batch_type": "tried", "items": [{}]}
            made = await asked("ann", "POST", "/api/batches", json=body)
            assert (made.status_code, made.json()["created_by"]) == (202, "ann")
            own = made.headers["location"].removeprefix("/imports")
            seen = {
                user: (await asked(user, "GET", own)).status_code
                for user in ("ann", "bob", "customer", None)
            }
            assert seen == {"ann": 200, "bob": 404, "customer": 401, None: 401}
            page = await asked("ann", "GET", "/dashboard")
            assert "Sign out" not in page.text  # it is not ours to do
            refused = await asked(None, "GET", "/dashboard")
            assert "Sign in to the application" in refused.text
            assert (await asked("ann", "POST", "/api/session")).status_code == 409
            ticket = (await asked("ann", "POST", own + "/events/ticket")).json()["ticket"]
            await manager.process_batch(made.json()["batch_id"])
            assert (await asked(None, "GET", f"{own}/events?ticket={ticket}")).status_code == 200
    assert caplog.text == ""


# --- sessions


@pytest_asyncio.fixture(loop_scope="session")
async def batch_id(manager):
    manager.registry.register(processor(quiet))
    return await manager.create_batch("tried", [{}])


async def sign_in(opened, key=KEY):
    token = token_in((await opened.get("/dashboard/sign-in")).text)
    form = {"token": token, "key": key}
    answer = await opened.post("/dashboard/sign-in", data=form, headers=SAME_SITE)
    assert answer.status_code == 303, answer.text


@pytest.mark.parametrize("way", ["dashboard", "api"])
async def test_a_withdrawn_key_ends_its_sessions(manager, batch_id, way):
    keys = Keys(ann=KEY)
    api = APIManager(manager, authentication=keys, worker=False)
    async with api.running(), browser(api) as opened:
        if way == "dashboard":
            await sign_in(opened)
        else:
            await opened.post("/api/session", headers={"x-api-key": KEY})
        own = f"/api/batches/{batch_id}"
        assert (await opened.get(own)).status_code == 200
        ticket = (await opened.post(f"{own}/events/ticket", headers={"x-api-key": KEY})).json()[
            "ticket"
        ]
        pause = f"/dashboard/batches/{batch_id}/pause"
        form = {"token": token_in((await opened.get(pause)).text)}
        keys.keys = {"bob": KEY}  # not even who has the key now is whom it was given to
        assert (await opened.get(own)).status_code == 401
        keys.keys = {}
        assert (await opened.get(own)).status_code == 401
        assert (await opened.get(f"{own}/events?ticket={ticket}")).status_code == 401
        assert (await opened.get("/dashboard")).status_code == 303
        assert (await opened.post(pause, data=form, headers=SAME_SITE)).status_code == 401
        assert (await manager.get_batch(batch_id)).status == "pending"


@pytest.mark.parametrize("way", ["dashboard", "api"])
async def test_signing_out_ends_the_session_wherever_its_cookie_is(dsn, manager, way):
    keys = ApiKeys({"ann": hash_of(KEY)})
    api = APIManager(manager, authentication=keys, worker=False)
    other = BatchManager(dsn)
    elsewhere = APIManager(
        other, authentication=keys, worker=False
    )  # another process, without a secret
    async with (
        api.running(),
        elsewhere.running(),
        browser(api) as opened,
        browser(elsewhere) as copy,
    ):
        await sign_in(opened)
        (name,) = [one for one in opened.cookies if "session" in one]
        copy.cookies.set(name, opened.cookies[name])
        assert (await copy.get("/api/batches")).status_code == 200
        if way == "api":
            assert (await opened.delete("/api/session")).status_code == 204
        else:
            form = {"token": token_in((await opened.get("/dashboard")).text)}
            await opened.post("/dashboard/sign-out", data=form, headers=SAME_SITE)
        assert name not in opened.cookies
        assert (await copy.get("/api/batches")).status_code == 401


@pytest.mark.parametrize(
    "value", ["", "x", "ä", "====", "A" * 5_000, "QUJD" * 20, "a.b.c", "-_" * 30]
)
async def test_a_forged_cookie_is_nobody(manager, batch_id, value):
    api = APIManager(manager, authentication=Keys(ann=KEY), worker=False)
    async with api.running(), browser(api) as opened:
        cookie = {"cookie": f"reliable_imports_session={value}".encode()}
        assert (await opened.get(f"/api/batches/{batch_id}", headers=cookie)).status_code == 401
        assert (
            await opened.get(f"/api/batches/{batch_id}/events", params={"ticket": value})
        ).status_code == 401
        assert (await opened.delete("/api/session", headers=cookie)).status_code == 204


async def test_the_database_keeps_no_key_and_forgets_what_has_run_out(manager, batch_id, conn):
    api = APIManager(manager, authentication=Keys(ann=KEY), worker=False)
    async with api.running(), browser(api) as opened:
        await sign_in(opened)
        row = await conn.fetchrow("SELECT * FROM reliable_imports.import_sessions")
        assert KEY.encode() not in row["key_share"]
        assert KEY not in opened.cookies["reliable_imports_session"]
        await conn.execute("UPDATE reliable_imports.import_sessions SET expires_at = now()")
        assert (await opened.get(f"/api/batches/{batch_id}")).status_code == 401
        opened.cookies.clear()
        await sign_in(opened)
        assert await conn.fetchval("SELECT count(*) FROM reliable_imports.import_sessions") == 1


@pytest.mark.parametrize(
    ("url", "prefix", "name"),
    [
        ("http://test", "", "reliable_imports_session"),
        ("https://test", "", "__Host-reliable_imports_session"),
        ("https://test", "/imports", "__Secure-reliable_imports_session"),
    ],
)
async def test_cookies_are_as_safe_as_can_be(dsn, url, prefix, name):
    manager, app = BatchManager(dsn), Starlette()
    api = APIManager(manager, authentication=Keys(ann=KEY), worker=False)
    if prefix:
        api.mount_into(app, prefix)
    else:
        app = api.app
    async with api.running():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=url) as outside:
            answer = await outside.post(f"{prefix}/api/session", headers={"x-api-key": KEY})
            cookie = answer.headers["set-cookie"].lower()
            assert cookie.startswith(f"{name.lower()}=")
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert f"path={prefix}/;" in cookie + ";"
            assert ("secure" in cookie.replace(name.lower(), "")) is url.startswith("https")
            assert (await outside.get(f"{prefix}/api/batches")).status_code == 200


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, " " * 40])
def test_a_short_secret_is_refused(secret):
    with pytest.raises(ConfigurationError, match="32 characters"):
        APIManager(BatchManager("postgresql://x", settings=Settings(api_secret=secret)))


def test_a_long_secret_is_taken():
    APIManager(BatchManager("postgresql://x", settings=Settings(api_secret="x" * 32)))


# --- streams


@pytest.mark.parametrize("ends", ["key", "sign-out", "visibility", "ticket"])
async def test_a_stream_ends_soon_after_its_key(manager, batch_id, monkeypatch, ends):
    look_again_every(monkeypatch, 0.01)
    seen = {"tried": True}

    class Seen(BaseEndpoint):
        batch_type = "tried"

        def visible_batches(self, ctx):
            return seen["tried"]

    manager.registry.register_endpoint(Seen)
    keys = Keys(ann=KEY)
    api = APIManager(manager, authentication=keys, worker=False)
    async with (
        api.running(),
        serving(api.app) as server,
        httpx.AsyncClient(base_url=server.url) as outside,
    ):
        own, header = f"/api/batches/{batch_id}", {"x-api-key": KEY}
        given, query = {"x_api_key": KEY}, ""
        if ends == "sign-out":
            await outside.post("/api/session", headers=header)
            given = {
                "cookie": f"reliable_imports_session={outside.cookies['reliable_imports_session']}"
            }
        elif ends == "ticket":
            given = {}
            query = (
                "?ticket="
                + (await outside.post(f"{own}/events/ticket", headers=header)).json()["ticket"]
            )
        async with client(server.port) as stream:
            await stream.get(f"{own}/events{query}", **given)
            await stream.until("event: progress")
            await asyncio.sleep(0.05)  # it was asked some times, and goes on
            if ends in ("key", "ticket"):
                keys.keys = {}
            elif ends == "sign-out":
                await outside.delete("/api/session")
            else:
                seen["tried"] = False
            async with asyncio.timeout(PATIENCE):
                await stream.until("0\r\n\r\n")


# --- other sites


HERE = {"host": "api.example:8000"}
ALLOWED = "https://app.example"


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "Cross-Site"}, False),
        ({"sec-fetch-site": "something new"}, False),
        ({"origin": "http://api.example:8000"}, True),
        ({"origin": "http://API.example:8000"}, True),
        ({"origin": "http://api.example"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"ORIGIN": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "//api.example:8000"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://api.example:8000", "sec-fetch-site": "cross-site"}, False),
        ({"origin": ALLOWED}, True),
        ({"origin": ALLOWED, "sec-fetch-site": "cross-site"}, True),
        ({"origin": ALLOWED + ".evil.example", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://evil.example", "x-http-method-override": "GET"}, False),
        ({"origin": "http://evil.example", "x-forwarded-host": "evil.example"}, False),
    ],
)
async def test_what_may_change_something_comes_from_no_other_site(manager, headers, passes):
    manager.settings = manager.settings.model_copy(update={"cors_origins": (ALLOWED,)})
    manager.registry.register(processor(quiet))
    api = APIManager(manager, worker=False)
    async with api.running(allow_anonymous=True), browser(api) as opened:
        opened.headers.update(HERE | headers)
        body = {"batch_type": "tried", "items": [{}]}
        answers = [
            await opened.post("/api/batches", json=body),
            await opened.post("/api/batches/upload?batch_type=tried", content=b"a\n1\n"),
            await opened.post(
                "/api/batches/upload?batch_type=tried&on_same_file=force", files={"file": b"a\n1\n"}
            ),
            await opened.delete("/api/session"),
            await opened.patch(
                f"/api/batches/{filled('{batch_id:uuid}', '0' * 8)}/items/1", json={}
            ),
            await opened.put("/api/batches", json=body),
        ]
        refused = [one.status_code == 403 for one in answers]
        assert refused == [not passes] * len(answers), [one.text for one in answers]
        assert len([one async for one in manager.list_batches()]) == (3 if passes else 0)
        assert (await opened.get("/api/batches")).status_code == 200  # looking is the same for all


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_json_body_needs_its_content_type(manager, kind):
    manager.registry.register(processor(quiet))
    batch_id = await manager.create_batch("tried", [])
    api = APIManager(manager, worker=False)
    async with api.running(allow_anonymous=True), browser(api) as opened:
        headers = {} if kind is None else {"content-type": kind}
        for method, path in (
            ("POST", "/api/batches"),
            ("POST", f"/api/batches/{batch_id}/pause"),
            ("POST", f"/api/batches/{batch_id}/process"),
            ("POST", f"/api/batches/{batch_id}/reprocess"),
            ("PATCH", f"/api/batches/{batch_id}/items/1"),
        ):
            body = b'{"batch_type": "tried", "items": [{}]}'
            answer = await opened.request(method, path, content=body, headers=headers)
            assert answer.status_code == 415, path
        assert (await opened.post(f"/api/batches/{batch_id}/pause")).status_code == 200


# --- what answers say


async def test_every_answer_has_safe_headers(manager, batch_id):
    api = APIManager(manager, worker=False)
    paths = [filled(one.path, batch_id) for one in OPERATIONS] + [
        "/dashboard" + filled(one.path, batch_id) for one in PAGES
    ]
    async with api.running(allow_anonymous=True), browser(api) as opened:
        for path in [
            *paths,
            "/nothing",
            "//api/batches",
            "/api/batches/",
            "/api/batches/%2F",
            "/api%2Fbatches",
        ]:
            for method in ("GET", "HEAD", "OPTIONS", "POST", "TRACE"):
                answer = await opened.request(method, path)
                headers = answer.headers
                assert headers["x-content-type-options"] == "nosniff", (method, path)
                assert "frame-ancestors 'none'" in headers["content-security-policy"], (
                    method,
                    path,
                )
                assert headers["referrer-policy"] in ("no-referrer", "same-origin"), (method, path)
                if "/static/" not in path and "/docs/" not in path:
                    assert headers["cache-control"] == "no-store", (method, path)
        for kind in ("csv", "jsonl"):
            sent = await opened.get(f"/api/batches/{batch_id}/failures.{kind}")
            assert sent.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/a/events?ticket=abc", "/a/events?ticket=***"),
        ("/a/events?x=1&ticket=abc&y=2", "/a/events?x=1&ticket=***&y=2"),
        ("/a/events?%74icket=abc", "/a/events?%74icket=***"),
        ("/a/events?ticket=a&ticket=b", "/a/events?ticket=***&ticket=***"),
        ("/a/tickets?x=ticket", "/a/tickets?x=ticket"),
        ("/a/ticket", "/a/ticket"),
    ],
)
def test_tickets_stay_out_of_the_access_log(target, logged):
    assert without_ticket(target) == logged


async def test_the_servers_access_log_has_no_ticket(manager, batch_id, caplog):
    api = APIManager(manager, worker=False)
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        async with api.running(allow_anonymous=True), serving(api.app) as server:
            async with httpx.AsyncClient(base_url=server.url) as outside:
                await outside.get(f"/api/batches?ticket={KEY}")
    assert "ticket=***" in caplog.text
    assert KEY not in caplog.text


async def test_texts_name_no_batch_that_is_hidden(manager, conn):
    """A skipped item says which came before it, and a busy type which batch it waits for."""

    async def process_item(item, ctx): ...

    keyed = processor(process_item, item_key=lambda item: "k", skip_unchanged=True)
    manager.registry.register(keyed)
    manager.registry.register_endpoint(OwnEndpoint)
    theirs = await manager.create_batch("tried", [{"a": 1}], created_by="bob")
    await manager.process_batch(theirs)
    api = APIManager(manager, authentication=Keys(ann=KEY), worker=False)
    mine = await manager.create_batch("tried", [{"a": 1}], created_by="ann")
    assert (await manager.process_batch(mine)).skipped_items == 1
    async with api.running(), browser(api) as opened:
        opened.headers["x-api-key"] = KEY
        for path in ("/items", "/items/1", ""):
            text = (await opened.get(f"/api/batches/{mine}{path}")).text
            assert str(theirs) not in text, path
            assert path == "" or "of batch (hidden)" in text
        for path in ("/items", "/items/1", ""):
            assert str(theirs) not in (await opened.get(f"/dashboard/batches/{mine}{path}")).text


@pytest.mark.parametrize("way", ["alone", "mounted", "behind a proxy"])
async def test_it_is_as_closed_wherever_it_stands(dsn, way):
    """Sessions, tickets, forms and refusals do not depend on where the API is mounted."""
    manager = BatchManager(dsn)
    manager.registry.register(processor(quiet))
    api = APIManager(manager, authentication=Keys(ann=KEY), worker=False)
    app, prefix, given = api.app, "", {}
    if way != "alone":
        app, prefix = FastAPI(), "/imports"
        api.mount_into(app, prefix)
    if way == "behind a proxy":
        prefix, given = "/svc/imports", {"root_path": "/svc"}
    async with api.running():
        transport = httpx.ASGITransport(app, **given)
        batch_id = await manager.create_batch("tried", [{}])
        own = f"{prefix}/api/batches/{batch_id}"
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as outside:
            key = {"x-api-key": KEY}
            assert (await outside.get(own)).status_code == 401
            assert (await outside.get(own, headers=key)).status_code == 200
            assert (
                await outside.post(f"{own}/pause", headers=key | {"origin": "http://evil"})
            ).status_code == 403
            ticket = (await outside.post(f"{own}/events/ticket", headers=key)).json()["ticket"]
            await manager.pause_batch(batch_id)  # so that the stream has an end
            for path, status in (
                (f"{own}/events", 200),
                (f"{own}/items", 401),
                (f"{prefix}/api/batches/{NOBODY}/events", 401),
                (f"{own}//events", 404),
            ):
                assert (await outside.get(f"{path}?ticket={ticket}")).status_code == status, path
            assert (await outside.get(f"{prefix}/dashboard")).status_code == 303
            page = await outside.get(f"{prefix}/dashboard/sign-in")
            form = {"token": token_in(page.text), "key": KEY}
            where = f"{prefix}/dashboard/sign-in"
            other = await outside.post(where, data=form, headers={"sec-fetch-site": "cross-site"})
            assert other.status_code == 403
            assert (await outside.post(where, data=form, headers=SAME_SITE)).status_code == 303
            name = "reliable_imports_session"
            cookie = {"cookie": f"{name}={outside.cookies[name]}"}
            assert (await outside.get(f"{prefix}/dashboard", headers=cookie)).status_code == 200
            assert (await outside.get(own, headers=cookie)).status_code == 200
            assert (
                await outside.post(f"{own}/cancel", headers=cookie | SAME_SITE)
            ).status_code == 401


async def test_a_busy_type_names_no_batch_that_is_hidden(manager, conn):
    class NightlyEndpoint(BaseEndpoint):
        def visible_batches(self, ctx):
            return Visible(created_by=ctx.user_id)

    manager.registry.register(NightlyProcessor)
    manager.registry.register_endpoint(NightlyEndpoint)
    other = uuid7()
    await running(conn, other, "nightly")
    api = APIManager(manager, authentication=Keys(ann=KEY, bob=new_api_key()), worker=False)
    async with api.running(), browser(api) as opened:
        opened.headers["x-api-key"] = KEY
        body = {"batch_type": "nightly", "items": [{"sku": "b", "count": 1}]}
        answer = await opened.post("/api/batches", json=body)
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("another-batch-runs")
        assert str(other) not in answer.text


async def test_a_backend_that_raises_leaves_the_open_routes_open(manager, batch_id):
    class Strict(Keys):
        async def authenticate(self, conn):
            found = await super().authenticate(conn)
            if found is None:
                raise AuthenticationError("show your badge")
            return found

    api = APIManager(manager, authentication=Strict(ann=KEY), worker=False)
    async with api.running(), browser(api) as opened:
        assert (await opened.get("/health")).status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}):
            refused = await opened.get("/api/batches", headers=headers)
            assert (refused.status_code, refused.json()["detail"]) == (401, "show your badge")
        assert (await opened.get("/dashboard")).status_code == 303
        await sign_in(opened)
        assert (await opened.get(f"/dashboard/batches/{batch_id}")).status_code == 200


async def test_a_hook_that_breaks_hides_a_button_and_not_the_page(manager, batch_id, caplog):
    class Broken(BaseEndpoint):
        batch_type = "tried"

        def authorize(self, ctx, action, batch):
            if action != "view":
                raise RuntimeError("no database")
            return True

    manager.registry.register_endpoint(Broken)
    api = APIManager(manager, worker=False)
    async with api.running(allow_anonymous=True), browser(api) as opened:
        page = await opened.get(f"/dashboard/batches/{batch_id}")
        assert page.status_code == 200
        assert "/cancel" not in page.text
        assert "/dashboard/upload" not in page.text
        assert (await opened.post(f"/api/batches/{batch_id}/cancel")).status_code == 500
    assert "no database" in caplog.text
    assert (await manager.get_batch(batch_id)).status == "pending"
