"""Connection warnings look at the first requests alone; `tests/behaviour/test_deployment_warnings.py` has what they say."""

import pytest
from starlette.requests import HTTPConnection

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings
from ratelimit.asgi.connection_warnings import WATCHED_REQUESTS, ConnectionWarnings

LIMITS = [
    Limit(name="ip", rate="9/minute", per="ip"),
    Limit(name="token", rate="9/minute", per="token"),
    Limit(name="jobs", rate="9/minute", per="org", manual=True),
    Limit(name="tenant", rate="9/minute", per="tenant"),
    Limit(name="project", rate="9/minute", per="project"),
]
SETTINGS = RateLimitSettings(limits=LIMITS, dimensions={"tenant": None, "project": "path:project"})


def connection(**headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": ("192.0.2.1", 1)})


def warnings_of(*, has_own_identify: bool = False) -> ConnectionWarnings:
    return ConnectionWarnings(Limiter(SETTINGS, MemoryStore()), has_own_identify=has_own_identify)


def test_only_the_first_requests_are_looked_at() -> None:
    """The last of them says that it was the last."""
    watch = warnings_of().watch
    assert [watch(connection(), Identity()) for _ in range(WATCHED_REQUESTS)] == [True] * (WATCHED_REQUESTS - 1) + [
        False
    ]


def test_limits_that_no_identity_has_met_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Of an app with its own `identify`: it forgot the address, or a dimension; sources and calls by name are no identity."""
    watch = warnings_of(has_own_identify=True).watch
    for _ in range(WATCHED_REQUESTS):
        watch(connection(x_forwarded_for="6.6.6.6"), Identity(token="t"))
    assert caplog.messages == [
        "limit 'ip' did not apply to any of the first 100 requests: identify has found no ip [RL219]",
        "limit 'tenant' did not apply to any of the first 100 requests: identify has found no tenant [RL219]",
    ]


def test_a_header_that_the_server_believes_already_is_not_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Uvicorn puts the client's address in place of its proxy's."""
    warnings_of().watch(connection(x_forwarded_for="10.0.0.1, 192.0.2.1"), Identity(token="t", ip="192.0.2.1"))
    assert caplog.messages == []
