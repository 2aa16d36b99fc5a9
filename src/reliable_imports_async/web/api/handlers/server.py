"""The server itself: health, metrics, the OpenAPI document and its page."""

import html
import json

from starlette.responses import HTMLResponse, RedirectResponse, Response
from swagger_ui_bundle import swagger_ui_path

from ....errors import ReliableImportsError
from ....failures import is_outage
from ... import metrics
from ...http.call import Call, reply

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Import API</title>
<link rel="stylesheet" href="{base}/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="{base}/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui" data-document="{base}/openapi.json"></div>
<script src="{base}/docs/swagger-ui-bundle.js"></script>
<script src="{base}/docs/start.js"></script>
</body>
</html>
"""
START = """\
SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


async def get_start(call: Call) -> Response:
    """Redirect to the dashboard, or to the documentation page if there is no dashboard."""
    place = "dashboard" if call.service.dashboard else "docs"
    return RedirectResponse(f"{call.base}/{place}", 307, {"Cache-Control": "no-store"})


async def get_health(call: Call) -> Response:
    """Show whether this server can work; 503 if not."""
    answer = {
        "status": "ok",
        "database": "ok",
        "schema_version": None,
        "worker": call.service.background.state,
    }
    try:
        async with call.reading():
            answer["schema_version"] = await call.manager.check()
    except Exception as exc:
        if not isinstance(exc, ReliableImportsError | TimeoutError) and not is_outage(exc):
            raise
        known = isinstance(exc, ReliableImportsError)
        answer |= {"status": "unavailable", "database": str(exc) if known else "no answer"}
    if answer["worker"] not in ("running", "off"):
        answer["status"] = "unavailable"
    return reply(answer, 200 if answer["status"] == "ok" else 503)


async def get_metrics(call: Call) -> Response:
    """Show metrics of the batches that the caller may see, in Prometheus' text format."""
    async with call.reading():
        content = await metrics.render(call.manager, await call.visible())
        return Response(content, media_type=metrics.CONTENT_TYPE)


async def get_document(call: Call) -> Response:
    """Describe this API in an OpenAPI 3.1 document."""
    return reply(call.service.document(call.base))


async def get_docs(call: Call) -> Response:
    """Show the OpenAPI document as a page on which requests can be tried."""
    page = PAGE.format(base=html.escape(call.base, quote=True))
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


async def get_docs_file(call: Call) -> Response:
    """Send a file of the documentation page."""
    name = call.request.path_params["name"]
    if name == "start.js":
        return Response(START, media_type="text/javascript")
    kind = FILES.get(name)
    if kind is None:
        return Response(json.dumps({"detail": "no such file"}), 404)
    content = (swagger_ui_path / name).read_bytes()
    return Response(content, media_type=kind, headers={"Cache-Control": "max-age=86400"})
