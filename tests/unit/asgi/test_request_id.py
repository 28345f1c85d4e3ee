"""Request ids: the request's own where a URI can hold it, else a new one; `tests/behaviour/test_refusal_log.py` has the rest."""

import json
from typing import Any

from ratelimit.asgi.request_id import request_id_header, request_id_of, with_instance


def test_a_problem_gets_an_instance() -> None:
    """As its last member."""
    body = with_instance(b'{"status":429}', "urn:uuid:1")
    assert json.loads(body) == {"status": 429, "instance": "urn:uuid:1"}
    assert request_id_header("a") == (b"x-request-id", b"a")


def test_new_ids_differ() -> None:
    """Of two requests without one."""
    scope: dict[str, Any] = {"headers": []}
    assert request_id_of(scope) != request_id_of(scope)
    assert request_id_of({"headers": [(b"X-Request-Id", b"abc-1")]}) == "abc-1"
