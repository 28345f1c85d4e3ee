"""Request ids: what a refused caller can report, and the log has too."""

import os
import re
from random import Random
from typing import Final

from starlette.types import Scope

from ratelimit.asgi.headers import Header

REQUEST_ID: Final = b"x-request-id"

_ids: Final = Random()  # noqa: S311 - an id is no secret; one of our own, because apps set the seed of the common one
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)

_SAFE: Final = re.compile(rb"[A-Za-z0-9._~-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """Return the `X-Request-ID` of a request, or a new one, of 16 digits, where it has none that a URI could hold."""
    for name, value in scope["headers"]:
        if name.lower() == REQUEST_ID and _SAFE.fullmatch(value):
            return str(value, "ascii")
    return f"{_ids.getrandbits(64):016x}"


def with_instance(body: bytes, request_id: str) -> bytes:
    """Return a problem with the id as its `instance` (RFC 9457 §3.1.5); `body` is a JSON object that is not empty."""
    return b'%s,"instance":"%s"}' % (body[:-1], request_id.encode())


def request_id_header(request_id: str) -> Header:
    """Return the header that has the id, for answers whose body has no place for it."""
    return REQUEST_ID, request_id.encode()
