"""The log lines of refusals."""

import logging
from typing import Final

import httpx

logger = logging.getLogger("ratelimit.client")

_warnings: Final = logging.getLogger("ratelimit")


def log_refusal(request: httpx.Request, response: httpx.Response, attempt: int, outcome: str) -> None:
    """Log a refusal and what follows from it, without the query and the credentials of the URL."""
    retry_after = response.headers.get("retry-after")
    logger.info(
        "%s %s: refused with %d%s, attempt %d; %s",
        request.method,
        request.url.copy_with(query=None, userinfo=b""),
        response.status_code,
        f" (Retry-After {retry_after:.50})" if retry_after else "",
        attempt,
        outcome,
    )


def warn_of_long_wait(request: httpx.Request, response: httpx.Response, *, retry_after: float, max_wait: float) -> None:
    """Warn that a refusal goes to the caller because it asks for a wait of `retry_after` seconds; names the host alone.

    The path may contain credentials as well as the query.
    """
    _warnings.warning(
        "%s: the response %d asks for a wait of %g s, more than max_wait=%g s: "
        "the caller gets it, and the request is not sent again [RL707]",
        request.url.host,
        response.status_code,
        retry_after,
        max_wait,
    )
