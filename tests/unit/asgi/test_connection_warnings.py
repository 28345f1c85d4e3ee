"""Connection warnings look at the first requests alone; `tests/behaviour/test_deployment_warnings.py` has what they say."""

import pytest
from starlette.requests import HTTPConnection

from ratelimit import Identity, Limiter, MemoryStore, RateLimitSettings
from ratelimit.asgi.connection_warnings import ConnectionWarnings


def test_a_warning_comes_with_one_of_the_first_requests_or_not_at_all(caplog: pytest.LogCaptureFixture) -> None:
    """Later requests cost nothing; each is identified as before."""
    identify = ConnectionWarnings(Limiter(RateLimitSettings(), MemoryStore())).watching(lambda _: Identity(org="o"))
    plain = HTTPConnection({"type": "http", "headers": [], "client": ("192.0.2.1", 1)})
    proxied = HTTPConnection({**plain.scope, "headers": [(b"x-forwarded-for", b"6.6.6.6")]})
    for _ in range(100):
        assert identify(plain) == Identity(org="o")
    assert identify(proxied) == Identity(org="o")
    assert caplog.messages == []
