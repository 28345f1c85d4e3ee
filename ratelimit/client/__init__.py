"""The other end of the wire: transports for httpx that obey a server's limits (`pip install ratelimit-asgi[client]`)."""

try:
    import http_sf as _http_sf
    import httpx as _httpx
    import tenacity as _tenacity
except ImportError as error:
    raise ImportError(
        f"ratelimit.client needs {error.name}, which is not installed: pip install 'ratelimit-asgi[client]'"
    ) from error

from ratelimit.client.exchange import Wait
from ratelimit.client.policy import CONTRACT_A, CONTRACT_B, EXPONENTIAL, RetryPolicy, wait_retry_after
from ratelimit.client.throttled import AsyncThrottleTransport, ThrottleTransport
from ratelimit.client.transports import AsyncRetryTransport, RetryTransport

__all__ = [
    "CONTRACT_A",
    "CONTRACT_B",
    "EXPONENTIAL",
    "AsyncRetryTransport",
    "AsyncThrottleTransport",
    "RetryPolicy",
    "RetryTransport",
    "ThrottleTransport",
    "Wait",
    "wait_retry_after",
]

del _http_sf, _httpx, _tenacity
