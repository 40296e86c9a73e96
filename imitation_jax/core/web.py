"""What the served pages share: the address, who may come in, what a page may do, requests' JSON, stopping in order."""

import base64
import hashlib
import ipaddress
import json
import re
import signal
import socket
from collections.abc import AsyncIterable, Mapping

import uvicorn
from absl import logging
from starlette.types import ASGIApp

SECONDS_TO_FINISH = 30  # what is under way at SIGTERM


def is_local(host: str) -> bool:
    """Whether the name or address means this machine, seen from itself."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def foreign_page(headers: Mapping[bytes, bytes]) -> tuple[str, str] | None:
    """(why, a code for it) where a request to a server for this machine alone comes from somebody else's web page."""
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not is_local(re.sub(r":\d*$", "", host)):
        return f"this server is for local use; it is not called {host[:80]!r}", "wrong_host"
    if origin not in ("", f"http://{host}"):
        return f"not for pages of {origin[:80]!r}", "wrong_origin"
    return None


async def json_object(body: AsyncIterable[bytes], most: int) -> dict:
    """The JSON object that the body of a request is.

    Args:
      most: bytes. Of a larger body sixteen times as much is read, since most clients listen only after they have sent
        all.

    Raises:
      OverflowError: it is larger.
      ValueError: it is none; says why in one line.
    """
    size, pieces = 0, []
    async for piece in body:
        size += len(piece)
        if size <= most:
            pieces.append(piece)
        elif size > 16 * most:
            break
    if size > most:
        raise OverflowError(f"the request is larger than the limit of {most:,} bytes")
    try:
        value = json.loads(b"".join(pieces))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is no JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise ValueError("the request is no JSON object")
    return value


def page_headers(html: str) -> dict[str, str]:
    """With a Content-Security-Policy under which the page runs its own script and style and asks this server alone."""

    def own(tag: str) -> str:
        content = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()

    parts = [
        "default-src 'none'",
        f"script-src 'sha256-{own('script')}'",
        f"style-src 'sha256-{own('style')}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {"Content-Security-Policy": "; ".join(parts), "Referrer-Policy": "no-referrer"}


def bind(host: str, port: int, key: str | None, variable: str) -> socket.socket:
    """A socket that listens there.

    Args:
      key: without one, only this machine can be served.
      variable: of the environment, that would hold the key.

    Raises:
      ValueError, OSError: in one line, why it cannot be.
    """
    if not 0 <= port < 2**16:  # some systems would take another one
        raise ValueError(f"--port={port}: must be from 0 to 65535")
    if key is None and not is_local(host):
        raise ValueError(
            f"--host={host}: others could use this server; set {variable} in the environment, or use 127.0.0.1"
        )
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # until then the system gives the address to others too
    except OSError as error:
        raise OSError(f"--host={host} --port={port}: cannot be served there ({error})") from None
    return bound


def http_server(app: ASGIApp) -> uvicorn.Server:
    """Not yet running."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return uvicorn.Server(config)


def run(app: ASGIApp, bound: socket.socket, what: str) -> None:
    """Serves until SIGTERM or SIGINT; then requests under way have half a minute to finish.

    Args:
      what: for the log, with {url} where the address belongs.
    """
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    http = http_server(app)
    # One that comes before uvicorn listens to it, or that uvicorn raises once more at its end, is a good end too.
    signal.signal(signal.SIGTERM, lambda *_: setattr(http, "should_exit", True))
    logging.info(what.replace("{url}", url))
    http.run(sockets=[bound])
    logging.info("stopped")
