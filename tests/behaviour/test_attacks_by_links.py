"""The promise: no address that somebody sends to an operator breaks a page, runs a script, or changes anything.

The attacker writes a link, or a page of another site leads to it; the operator's browser opens it, signed in.
"""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from ratelimit.testing import ManualClock
from tests.support.surfaces import OPERATOR, Surfaces, surfaces

ODD = [
    "9" * 5000,
    "\u0663",
    "\u00b2",
    "-1",
    "nan",
    "<script>alert(1)</script>",
    "\x00",
    "x" * 8000,
    "[" * 5000,
    "\u2167",
]
ODD += [
    "18446744073709551616-0",
    "1" * 32,
    "0.0.0.0/0",
    "fe80::1%eth0",
    "a#b",
    "5/minute",
    "GET /v1/agents",
    "../..",
    "\u202e",
]
NAMES = [
    "token",
    "token_hash",
    "org",
    "ip",
    "plan",
    "priority",
    "dimension.x",
    "dimension.x_hash",
    "endpoint",
    "method",
]
NAMES += ["grant.agents", "grant.calls", "grant.nosuch", "q", "policy", "kind", "caller", "after", "key"]


@pytest.fixture
async def served(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        await found.ask()
        await found.poll()
        yield found


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
async def test_a_crafted_query_breaks_no_page(served: Surfaces, value: str) -> None:
    """Whatever a parameter holds, a page answers with itself, or says what is wrong: never a 5xx, never a script."""
    text = quote(value, safe="")
    targets = [f"/ratelimit/caller?org=acme&{name}={text}" for name in NAMES]
    targets += [
        f"/ratelimit/{page}?q={text}&policy={text}&kind={text}&caller={text}" for page in ("live", "quotas/calls")
    ]
    targets += [f"/v1/rate-limits?endpoint={text}&method={text}", f"/internal/overrides?policy={text}&key={text}"]
    for target in targets:
        answer = await served.client.get(target, headers=OPERATOR)
        assert answer.status_code < 500, target
        is_json = answer.headers["content-type"].startswith("application/json")
        assert is_json or "<script>alert" not in answer.text, target
        assert "\u202e" not in answer.headers.get("location", "")
    assert await served.limiter.audit.list() == []


@pytest.mark.parametrize("folder", ["policies", "quotas", "live", "change", "static"])
async def test_a_crafted_path_breaks_no_page(served: Surfaces, folder: str) -> None:
    """The last part of a path may be anything: there is no such page."""
    for value in ODD:
        answer = await served.client.get(f"/ratelimit/{folder}/{quote(value, safe='')}", headers=OPERATOR)
        assert answer.status_code in {404, 405}, value
        assert "<script>alert" not in answer.text
