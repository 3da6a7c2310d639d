"""The gate before every request of the page: its origin, its session, the login form."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from html import escape
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusion.dashboard.access import Access

COOKIE = "fusion_session"
LOGIN, LOGOUT = "/login", "/logout"
FORM_BYTES = 4096
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}
FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fusion</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px system-ui,sans-serif;background:#eceff1;display:grid;place-items:center;min-height:90vh}}
form{{display:grid;gap:.7em;background:#fff;padding:2em;min-width:18em}}p{{margin:0;color:#a00}}</style>
<form method="post" action="/login"><p role="alert">{text}</p>
<label>Name <input name="name" autocomplete="username" autofocus required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form></html>"""


class Gate:
    """ASGI middleware: a foreign page gets nothing, a stranger the form, a person with a session the page.

    A request says where it comes from in ``Origin``: it must be this server itself, or one of ``origins``. Where nobody
    logs in, the server goes by no name but those of this machine, so that no foreign name can be made to lead here.
    """

    def __init__(self, app: ASGIApp, access: Access, origins: Collection[str] = (), *, secure: bool = False) -> None:
        self._app, self._access, self._secure = app, access, secure
        self._origins = {origin.rstrip("/") for origin in origins}
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await answer(scope, receive, _with_headers(send))
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4401, "reason": "not allowed"})

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What is said to a request that may not pass."""
        headers, path = Headers(scope=scope), scope["path"]
        if not self._known(headers):
            return PlainTextResponse("this page may not be used from another site\n", 403)
        if not self._access.needed:
            return None
        request = Request(scope, receive) if scope["type"] == "http" else None
        if request is not None and path in (LOGIN, LOGOUT):
            if request.method == "POST":
                return await (self._log_in(request) if path == LOGIN else self._log_out(request))
            return HTMLResponse(FORM.format(text=""))
        if self._access.who(token_of(headers)) is not None:
            return None
        if request is not None and request.method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(LOGIN, 303)
        return PlainTextResponse("log in first\n", 401)

    def _known(self, headers: Headers) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        own = f"{'https' if self._secure else 'http'}://{host}"
        known = {urlsplit(known).hostname for known in self._origins}
        if not self._access.needed and urlsplit(f"//{host}").hostname not in {*LOOPBACK, *known}:
            return False
        return origin is None or origin == own or origin in self._origins

    async def _log_in(self, request: Request) -> Response:
        address = request.client.host if request.client else ""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return PlainTextResponse("too long\n", 413)
        said = parse_qs(body.decode("utf-8", "replace"))
        name, password = (said.get(key, [""])[0] for key in ("name", "password"))
        async with self._one_at_a_time:  # a hash costs time and memory on purpose
            if wait_s := self._access.wait_s(address):
                text = f"Too many failed logins: try again in {math.ceil(wait_s / 60)} min."
                return HTMLResponse(FORM.format(text=escape(text)), 429, {"Retry-After": str(math.ceil(wait_s))})
            token = await asyncio.to_thread(self._access.enter, name, password, address)
        if not token:
            return HTMLResponse(FORM.format(text="Name or password is wrong."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=self._secure)
        return answer

    async def _log_out(self, request: Request) -> Response:
        self._access.leave(token_of(request.headers))
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE)
        return answer


def token_of(headers: Headers) -> str:
    """The session's token in a request's cookies, "" without one."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
