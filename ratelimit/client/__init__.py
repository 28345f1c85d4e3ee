"""Transports for httpx that obey a server's rate limits (`pip install ratelimit-asgi[client]`)."""

try:
    import http_sf as _http_sf
    import httpx as _httpx
    import tenacity as _tenacity
except ImportError as error:
    raise ImportError(
        f"ratelimit.client needs {error.name}, which is not installed: pip install 'ratelimit-asgi[client]'"
    ) from error

from ratelimit.client.retry_engine import WaitEvent
from ratelimit.client.retry_policy import CONTRACT_A, CONTRACT_B, DEFAULT_RETRY_POLICY, RetryPolicy, wait_retry_after
from ratelimit.client.retry_transport import AsyncRetryTransport, RetryTransport
from ratelimit.client.throttle_transport import AsyncThrottleTransport, ThrottleTransport

__all__ = [
    "CONTRACT_A",
    "CONTRACT_B",
    "DEFAULT_RETRY_POLICY",
    "AsyncRetryTransport",
    "AsyncThrottleTransport",
    "RetryPolicy",
    "RetryTransport",
    "ThrottleTransport",
    "WaitEvent",
    "wait_retry_after",
]

del _http_sf, _httpx, _tenacity
