"""Static files of the console: its styles, its script, and htmx; no other origin is asked for anything."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "hx-sse.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


@cache
def content_of(name: str) -> bytes:
    """Return a static file."""
    return files("ratelimit.console").joinpath("static", name).read_bytes()


@cache
def version_of(name: str) -> str:
    """Return what the address of a static file ends with: it changes when the file does."""
    return sha256(content_of(name)).hexdigest()[:8]


async def asset(request: Request) -> Response:
    """Answer with a static file, which browsers may keep for ever; only files that are listed here are served."""
    name = request.path_params["name"]
    if name not in _TYPES:
        raise HTTPException(404)
    return Response(content_of(name), media_type=_TYPES[name], headers={"cache-control": _FOREVER})
