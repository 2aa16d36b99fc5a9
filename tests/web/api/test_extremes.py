"""Every parameter of every operation, and every page, at its extremes: refused, never a 500."""

import encodings.aliases
import json
import re
from urllib.parse import quote_from_bytes

import httpx
import pytest
import pytest_asyncio

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, BatchManager, Visible

from ...support.trying import PATIENCE
from ..reach import OPERATIONS, PAGES

NUMBERS = (
    "-1", "0", "1", "2147483647", "2147483648", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "1" + "0" * 30, "9" * 4_301, "-" + "9" * 5_000, "1e400", "-1e-400",
    "1.5", "NaN", "Infinity", "-0", "+1", " 1", "1_000", "0x10", "٣", "²",
)  # fmt: skip
DATES = (
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:60Z", "0000-01-01", "10000-01-01T00:00:00Z", "-0001-01-01", "2024-02-30",
    "2024-01-01T00:00:00", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00+99:99", "1e18",
    "-62135596801", "253402300800", "9" * 400,
)  # fmt: skip
TEXTS = (
    b"", b" ", b"\x00", b"a\x00b", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'"', b"'", b"\\",
    b"\r\nX-Evil: 1", b"\n", b"%", b"../../etc/passwd", "Größe 漢字 🎉".encode(),
    "\u202egnp.exe".encode(), b"a" * 10_000, b"(" * 500, b"{{7*7}}", b"null", b"\x1b[2J",
)  # fmt: skip
CODECS = (
    *sorted({*encodings.aliases.aliases.values(), *list(encodings.aliases.aliases)[::7]}),
    "rot13", "base64", "zlib", "idna", "punycode", "undefined", "mbcs", "oem", "unicode_escape",
    "raw_unicode_escape", "utf-8-sig", "utf-7", "utf-16", "utf-32", "bz2", "hex", "quopri", "uu",
    "\x00", "utf-8\x00", "é", "a b", "a" * 39, ".", "..", "encodings.utf_8", "utf 8",
)  # fmt: skip
DELIMITERS = ('"', "\n", "\r", "\x00", " ", "a", "é", "🎉", "\\", "\u2028", ",,", "")
ID = "00000000-0000-7000-8000-000000000000"
IDS = (ID, ID.upper(), f"urn:uuid:{ID}", f"{{{ID}}}", ID.replace("-", ""), f"{ID}0", "x", "\x00")
JSON_VALUES = (
    *[f'"{one}"' for one in ("", "a", "\\u0000", "\\ud800", "\\udc00\\ud800", "🎉", "x" * 10_000)],
    *[n for n in NUMBERS if re.fullmatch(r"-?[1-9]\d*(\.\d+)?(e-?\d+)?", n)], "NaN", "-Infinity",
    "true", "null", "[]", "{}", "[[[[]]]]", '{"a": "\\u0000"}', '{"": 1}', "[" * 900 + "]" * 900,
    "[" * 5_000 + "]" * 5_000, f"[{','.join('1' * 2_000)}]", '{"a": 1e400}', '{"a": 1, "a": 2}',
    f'{{{",".join(f"{json.dumps(str(i))}: 1" for i in range(500))}}}', '"9999-12-31T23:59:59-23:59"',
)  # fmt: skip
FILE_NAMES = (
    "", "a.csv", "ü.csv", "漢.csv", 'a"b.csv', "a\\b.csv", "../../a.csv", "a\x00.csv", "🎉.csv",
    "a\r\nX-Evil: 1.csv", "a" * 10_000, "a.csv.gz", "x.json", "x.jsonl", ".", "nul", "a;b=c.csv",
)  # fmt: skip


class ThingsProcessor(BaseProcessor):
    pause_after = None

    async def process_item(self, item, ctx):
        if "bad" in item.source_data:
            raise ValueError(str(item.source_data["bad"]))


class ThingsEndpoint(BaseEndpoint):
    """Sees what it is handed, as applications do."""

    def visible_batches(self, ctx):
        return Visible(metadata={})

    def before_create_batch(self, request_data, ctx):
        ctx.info(f"{request_data.metadata!r:.100}", items=len(request_data.items or []))


@pytest_asyncio.fixture(loop_scope="session")
async def served(manager: BatchManager):
    """A client, and a batch with an item that completed and others that failed."""
    manager.registry.register(ThingsProcessor)
    manager.registry.register_endpoint(ThingsEndpoint)
    api = APIManager(manager, worker=False)
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=PATIENCE) as client,
    ):
        batch_id = await manager.create_batch("things", [{"n": 1}, {"bad": "\u202e"}, {"bad": 2}])
        await manager.process_batch(batch_id)
        yield client, str(batch_id)


def values_of(schema, name):
    """The extremes of a parameter, as bytes before they are quoted."""
    text = json.dumps(schema)
    found = [*TEXTS]
    if '"integer"' in text or '"number"' in text:
        found += [one.encode() for one in NUMBERS]
    if "date-time" in text:
        found += [one.encode() for one in DATES]
    if '"uuid"' in text:
        found += [one.encode() for one in IDS]
    if name == "encoding":
        found += [one.encode() for one in CODECS]
    if name == "delimiter":
        found += [one.encode() for one in DELIMITERS]
    if name == "name":
        found += [one.encode() for one in FILE_NAMES]
    return dict.fromkeys(found)


def check(answer, what):
    assert answer.status_code != 401, "nothing is tried where nobody may come in"
    assert answer.status_code < 500, (what, answer.status_code, answer.text[:300])
    if answer.status_code >= 400:
        kind = answer.headers["content-type"]
        assert kind == "application/problem+json", (what, answer.status_code, kind)
        assert answer.json()["status"] == answer.status_code
    assert "x-evil" not in answer.headers
    answer.text.encode()


async def described(client, operation):
    """What the document says about an operation, with references resolved for parameters."""
    document = (await client.get("/openapi.json")).json()
    path = re.sub(r":\w+}", "}", operation.path)
    return path, document["paths"][path][operation.method.lower()]


def url_of(path, batch, /, **replaced):
    values = {"batch_id": batch, "item_number": "2", "name": "x"} | replaced
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], "x"), path)


async def send(client, operation, url, **more):
    if operation.path.endswith("/events"):
        more.setdefault("headers", {})
        url = url if "?" in url else f"{url}?ticket=x"
        with pytest.MonkeyPatch.context():
            async with client.stream(operation.method, url, **more) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                return answer if answer.is_closed or answer.status_code >= 400 else None
    if operation.takes_file and "content" not in more and "files" not in more:
        more["content"] = b"n,bad\n1,2\n"
        more["headers"] = {"content-type": "text/csv"} | more.get("headers", {})
    if operation.body is not None and "content" not in more:
        more["json"] = (
            {"batch_type": "things", "items": [{}]}
            if "items" in operation.body.model_fields
            else {}
        )
    return await client.request(operation.method, url, **more)


visible = [one for one in OPERATIONS if not one.hidden and not one.path.endswith("/events")]


@pytest.mark.long
@pytest.mark.parametrize("operation", visible, ids=lambda one: one.handler.__name__)
async def test_an_operation(served, operation):
    await send_parameters(served, operation)
    await send_query_strings(served, operation)
    if operation.body:
        await send_bodies(served, operation)
    if operation.takes_file:
        await send_files(served, operation)


async def send_parameters(served, operation):
    client, batch_id = served
    path, description = await described(client, operation)
    for parameter in description["parameters"]:
        name, place = parameter["name"], parameter["in"]
        for value in values_of(parameter["schema"], name):
            url, headers = url_of(path, batch_id), {}
            if place == "path":
                url = url_of(path, batch_id, **{name: quote_from_bytes(value, safe="")})
            elif place == "query":
                required = (
                    "batch_type=things&" if operation.takes_file and name != "batch_type" else ""
                )
                url = f"{url}?{required}{name}={quote_from_bytes(value, safe='')}"
            else:
                headers = {name: value}
            answer = await send(client, operation, url, headers=headers)
            check(answer, (name, place, value[:60]))


async def send_query_strings(served, operation):
    client, batch_id = served
    path, _ = await described(client, operation)
    many = "&".join(f"p{i}=1" for i in range(3_000))
    for query in (
        "%",
        "%ff=%ff",
        "=",
        "&&&",
        "a=1&a=2",
        "limit=1&limit=2",
        many,
        "%00=%00",
        "a[]=1",
    ):
        answer = await send(client, operation, f"{url_of(path, batch_id)}?{query}")
        check(answer, query[:60])


async def send_bodies(served, operation):
    client, batch_id = served
    path, _ = await described(client, operation)
    url = url_of(path, batch_id)
    headers = {"content-type": "application/json"}
    base = (
        {"batch_type": '"things"', "items": "[{}]", "process": "false"}
        if "items" in operation.body.model_fields
        else {}
    )
    if "source_data" in operation.body.model_fields:
        base = {"source_data": '{"a": 1}'}
    bodies = [*JSON_VALUES, "", "{", "\ufeff{}", '{"a": 1} {}', "[" * 200_000]
    for name in operation.body.model_fields:
        for value in JSON_VALUES:
            members = base | {name: value}
            bodies.append("{%s}" % ", ".join(f'"{key}": {one}' for key, one in members.items()))  # noqa: UP031
            if name in ("items", "metadata", "source_data"):
                inner = f'{{"a": {value}}}'
                inner = f"[{inner}, {value}]" if name == "items" else inner
                members = base | {name: inner}
                bodies.append("{%s}" % ", ".join(f'"{key}": {one}' for key, one in members.items()))  # noqa: UP031
    for body in dict.fromkeys(bodies):
        content = body.encode(errors="surrogatepass")
        answer = await client.request(operation.method, url, content=content, headers=headers)
        check(answer, body[:200])
    for content in (b"\xff", b'{"a": "\xff"}', b"\xff\xfe{\x00}\x00", b"\x00"):
        check(
            await client.request(operation.method, url, content=content, headers=headers), content
        )
    for kind in ("", "x", "application/json; charset=rot13", "text/plain", "\xff", "a/b" * 500):
        answer = await client.request(
            operation.method, url, content=b"{}", headers={"content-type": kind.encode("latin-1")}
        )
        check(answer, kind[:60])


async def send_files(served, operation):
    client, batch_id = served
    path, _ = await described(client, operation)
    url = f"{url_of(path, batch_id)}?{'' if '{' in path else 'batch_type=things'}"
    contents = (
        b"", b"\x00", b"\xff" * 100, b"PK\x03\x04" + b"\x00" * 50, b"%PDF-1.4\n", b"\x1f\x8b\x08broken",
        b"a,b\n1\n", b'a\n"', b"\xef\xbb\xbf", b"{", b"[", b"[1,2", b'{"a": 1}\n{', b"a" * 300_000, b",,,\n,,,\n",
        b"a,a\n1,2\n", b"\xfe\xff\x00a\x00\n\x001\x00\n", b"\r\r\r", b"a\n" + b"9" * 5_000 + b"\n",
        b"_item,_batch\n99999999999999999999,x\n", b"_item\n" + b"9" * 5_000 + b"\n",
        b'{"item_number": 1e400, "batch_id": 1, "record": {}}\n',
        b'{"item_number": ' + b"9" * 5_000 + b', "record": {"a": 1}}\n',
    )  # fmt: skip
    for content in contents:
        for kind in ("text/csv", "application/x-ndjson", "application/json", ""):
            answer = await client.request(
                operation.method, url, content=content, headers={"content-type": kind}
            )
            check(answer, (content[:40], kind))
    for name in FILE_NAMES:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}"'
        await form(client, operation, url, head.encode(), "b")
    for head in (b"", b"x", b"Content-Disposition: form-data", b"\xff\xff", b"a: " + b"b" * 20_000):
        await form(client, operation, url, head, "b")
    for boundary in ("", "b" * 300, "\xff", '"', "b; charset=rot13"):
        await form(
            client,
            operation,
            url,
            b'Content-Disposition: form-data; name="file"; filename="a"',
            boundary,
        )


async def form(client, operation, url, head, boundary):
    content = b"--b\r\n" + head + b"\r\n\r\nn\n1\n\r\n--b--\r\n"
    kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    answer = await client.request(
        operation.method, url, content=content, headers={"content-type": kind}
    )
    check(answer, (head[:80], boundary[:20]))


PARAMETERS = ("status", "before", "search", "batch_type", "group", "canary", "next")


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [one for one in PAGES if one.method == "GET"], ids=lambda one: one.path or "/"
)
async def test_pages(served, page):
    client, batch_id = served
    plain = re.sub(r":\w+}", "}", page.path)
    values = [*TEXTS, *[one.encode() for one in (*NUMBERS, *DATES, *IDS)]]
    urls = [f"/dashboard{url_of(plain, batch_id)}?{name}={quote_from_bytes(value, safe='')}"
            for name in PARAMETERS for value in values[::5]]  # fmt: skip
    for name in re.findall(r"{(\w+)", plain):
        quoted = [quote_from_bytes(value, safe="") for value in values]
        urls += [f"/dashboard{url_of(plain, batch_id, **{name: value})}" for value in quoted]
    for url in urls:
        answer = await client.get(url)
        assert answer.status_code < 500, (url[:200], answer.text[-500:])


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63, -(2**31) - 1, 10**30])
async def test_numbers_of_items_that_cannot_be_are_unknown(served, number):
    client, batch_id = served
    body = {"item_numbers": [1, number]}
    answer = await client.post(f"/api/batches/{batch_id}/reprocess", json=body)
    assert answer.status_code == 409, answer.text
    assert "has no item" in answer.json()["detail"]
