"""Serve a page on this machine alone. Nothing is fetched from other hosts, neither by the server nor by the browser."""

import os
from collections.abc import Awaitable, Callable

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

HOST = "127.0.0.1"
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; frame-ancestors 'none'"


async def alone(request: Request, further: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, unless Gradio would fetch the answer from another host; the browser may ask no other either."""
    if "=http" in request.url.path:
        return PlainTextResponse("not served", 403)
    response = await further(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def serve(page: gr.Blocks, css: str) -> str:
    """Begin to serve a page; returns its address. Files are served of GRADIO_TEMP_DIR alone."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = HOST  # Gradio asks itself whether it is there
    only_here = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # whatever a name resolves to
    page.launch(
        server_name=HOST, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False, mcp_server=False, pwa=False,
        enable_monitoring=False, run_history=False, footer_links=[], root_path="", css=css,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # no web fonts
        app_kwargs={"middleware": [only_here, Middleware(BaseHTTPMiddleware, dispatch=alone)]},
    )  # fmt: skip
    return page.local_url
