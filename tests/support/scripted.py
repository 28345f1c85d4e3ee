"""A server that answers by a table, which has one row for each refusal that a client may meet."""

from collections import Counter
from email.utils import formatdate
from typing import Any, NamedTuple

NOW = 1_790_000_000
"""Epoch seconds of every `Date` header."""


def date(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


class Row(NamedTuple):
    """A response that is given twice before a 200; the pauses that a client makes, and what its caller gets."""

    status: int
    headers: dict[str, str]
    pauses: tuple[float, ...]
    final: int = 200


DATED = {"date": date(0)}
TABLE = [
    Row(429, {"retry-after": "2"}, (2, 2)),
    Row(429, {"retry-after": "0"}, (0, 0)),
    Row(429, {"retry-after": "1.5"}, (1.5, 1.5)),
    Row(429, {"retry-after": "007"}, (7, 7)),
    Row(429, {"retry-after": "90"}, (90, 90)),
    Row(429, {"retry-after": "91"}, (), 429),
    Row(429, {"retry-after": "99999999999999999999999999"}, (), 429),
    Row(429, {"retry-after": "9" * 5000}, (), 429),
    Row(429, {"retry-after": date(20), **DATED}, (20, 20)),
    Row(429, {"retry-after": date(-20), **DATED}, (0, 0)),
    Row(429, {"retry-after": date(86_400), **DATED}, (), 429),
    Row(429, {"retry-after": "Wed, 31 Feb 2026 99:00:00 GMT", **DATED}, (1, 2)),
    Row(429, {}, (1, 2)),
    Row(429, {"retry-after": ""}, (1, 2)),
    Row(429, {"retry-after": "soon"}, (1, 2)),
    Row(429, {"retry-after": "-5"}, (1, 2)),
    Row(429, {"retry-after": "inf"}, (1, 2)),
    Row(429, {"retry-after": "nan"}, (1, 2)),
    Row(429, {"retry-after": "1e3"}, (1, 2)),
    Row(429, {"retry-after": "4", "x-ratelimit-limit": "10", "x-ratelimit-remaining": "0"}, (4, 4)),
    # Without Retry-After the reset holds back as well: the rest of it after the policy's own wait.
    Row(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 7), **DATED}, (1, 6, 2, 5)),
    Row(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, (1, 4, 2, 3)),
    Row(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 5}000", **DATED}, (1, 4, 2, 3)),
    Row(429, {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "5"}, (1, 4, 2, 3)),
    Row(429, {"ratelimit-limit": "10, 10;w=60", "ratelimit-remaining": "0", "ratelimit-reset": "3"}, (1, 2, 2, 1)),
    Row(429, {"ratelimit": '"a";r=0;t=6', "ratelimit-policy": '"a";q=10;w=60'}, (1, 5, 2, 4)),
    Row(429, {"ratelimit": '"a";r=0;t=3, "b";r=0;t=6, "c";r=9;t=60'}, (1, 5, 2, 4)),
    Row(429, {"ratelimit": '"a";r=0;t=6', "retry-after": "8"}, (8, 8)),
    Row(429, {"ratelimit": '"a;r=0;t=6'}, (1, 2)),
    Row(429, {"x-ratelimit-remaining": "many", "x-ratelimit-reset": "tomorrow"}, (1, 2)),
    Row(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 10**6), **DATED}, (1, 2)),
    Row(503, {"retry-after": "2"}, (2, 2)),
    Row(503, {}, (1, 2)),
    Row(401, {}, (1, 2)),
    Row(401, {"retry-after": "20"}, (20,), 401),
    Row(403, {"retry-after": "2"}, (), 403),
    Row(403, {"x-ratelimit-limit": "10"}, (), 403),
    Row(500, {"retry-after": "2"}, (), 500),
    Row(404, {}, (), 404),
    Row(200, {"retry-after": "2", "x-ratelimit-remaining": "0"}, (), 200),
]

_seen: Counter[str] = Counter()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer `/<colour>/<row>` as its row says, twice, and with 200 from then on; `/none` with 404."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    row = scope["path"].rpartition("/")[2]
    # A name without digits: parts of a path that have one are taken for ids.
    answer = TABLE[len(row) - 1] if row and not row.strip("r") else Row(404, {}, ())
    _seen[scope["path"]] += 1
    status, headers = (answer.status, answer.headers) if _seen[scope["path"]] <= 2 else (200, {})
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": str(_seen[scope["path"]]).encode()})
