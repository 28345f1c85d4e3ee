"""The page of refusals as they happen, of all workers, and the whole decision behind each."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from ratelimit.asgi.refusal import problem_of
from ratelimit.clock import monotonic
from ratelimit.console.rendering import fragment, render
from ratelimit.console.visit import Visit
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED
from ratelimit.enforcement.refusal_stream import Refusal
from ratelimit.errors import ConfigurationError, StoreError
from ratelimit.limiter import Limiter

_SHOWN: Final = 100
_READ: Final = 1000
_POLL_S: Final = 1.0
_STREAM_S: Final = 25.0
"""Seconds after which a stream ends and the browser asks again: servers wait for open streams when they stop."""

_ID: Final = re.compile(r"\d{1,20}(-\d{1,20})?")
_KINDS: Final = ("all", "refused", "shadow")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalFilter:
    """Which refusals are wanted."""

    policy: str = ""
    caller: str = ""
    kind: str = "all"

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "RefusalFilter":
        """Return the filter that a query describes."""
        kind = query.get("kind", "all")
        caller = query.get("caller", "").strip().lower()
        return cls(policy=query.get("policy", ""), caller=caller, kind=kind if kind in _KINDS else "all")

    def fits(self, each: Refusal) -> bool:
        """Say whether a refusal is wanted."""
        names = f"{each.counter} {each.caller} {' '.join(each.key.values())}".lower()
        is_kind = self.kind == "all" or each.shadow == (self.kind == "shadow")
        return is_kind and self.policy in ("", each.policy) and self.caller in names

    def query(self) -> dict[str, Any]:
        """Return the query that describes this filter."""
        return {"policy": self.policy, "caller": self.caller, "kind": self.kind if self.kind != "all" else ""}


async def live_page(visit: Visit) -> Response:
    """Answer with the last refusals, the newest first; the page goes on by the stream of `live_events`."""
    wanted, statistics = RefusalFilter.of(visit.request.query_params), visit.statistics
    found: Sequence[Refusal] = []
    if statistics is not None:
        await statistics.refusals.flush()
        found = await statistics.refusals.read(last=_READ)
    shown = [each for each in reversed(found) if wanted.fits(each)][:_SHOWN]
    after = found[-1].id if found else "0"
    return render(
        visit,
        "live.html",
        refusals=shown,
        wanted=wanted,
        kinds=_KINDS,
        policies=[*_policies(visit.limiter), BLOCKED],
        counts=statistics is not None,
        events=visit.url("live/events", {**wanted.query(), "after": after}),
    )


async def live_events(visit: Visit) -> Response:
    """Answer with a stream of server-sent events (HTML standard §9.2): a row of the table for each refusal.

    It begins after the event that the browser has seen last, and ends after 25 seconds.
    """
    query, statistics = visit.request.query_params, visit.statistics
    if statistics is None:
        raise HTTPException(404, "The settings do not count: write statistics = true.")
    seen = visit.request.headers.get("last-event-id") or query.get("after") or ""
    after = seen if _ID.fullmatch(seen) else "0"
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    events = _events(visit, RefusalFilter.of(query), after)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(visit: Visit, wanted: RefusalFilter, after: str) -> AsyncIterator[str]:
    statistics, began = visit.limiter.statistics, monotonic()
    if statistics is None:
        return
    yield "retry: 500\n\n"
    while monotonic() - began < _STREAM_S:
        try:
            found = await statistics.refusals.read(last=_READ, after=after)
        except StoreError:
            found = ()
        for each in found:
            after = each.id
            if wanted.fits(each):
                yield _event(each.id, fragment("refusal_row.html", visit=visit, each=each))
        if not found:
            yield ": waiting\n\n"
        await asyncio.sleep(_POLL_S)


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"id: {name}\n{lines}\n"


async def refusal_page(visit: Visit) -> Response:
    """Answer with one refusal: its whole decision, and the answer that was sent."""
    place, statistics = visit.request.path_params["id"], visit.statistics
    found = [] if statistics is None else await statistics.refusals.read(last=_READ)
    each = next((each for each in found if each.id == place), None)
    if each is None:
        raise HTTPException(404, "That refusal is no longer kept: the last thousand are.")
    return render(visit, "refusal.html", each=each, answer=_answer_to(visit.limiter, each))


def _answer_to(limiter: Limiter, each: Refusal) -> str | None:
    """Return the bytes of the answer as text; `None` where a policy in shadow refused nothing.

    They are made again from the decision, in the style that the settings have now.
    """
    if each.shadow:
        return None
    try:
        style = limiter.resolver.policies_at(limiter.resolver.route(each.method or "GET", each.route or "*")).style
    except ConfigurationError:
        style = limiter.settings.response
    decision = (
        Decision.blocked(each.wait or float("inf")) if each.policy == BLOCKED else Decision.from_limits(each.limits)
    )
    if not each.limits and each.policy != BLOCKED:
        decision = Decision.unavailable(each.wait or 1.0)
    if decision.allowed:  # Another program has written the entry.
        return None
    status, headers, body = problem_of(decision, style, each.request_id or "")
    fields = [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers]
    return "\n".join([f"HTTP/1.1 {status}", *fields, "", body.decode()])


def _policies(limiter: Limiter) -> list[str]:
    return sorted({each.policy.name for each in limiter.resolver.named.compiled()})
