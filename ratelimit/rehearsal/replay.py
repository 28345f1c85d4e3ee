"""The replay: what limits would have refused of the requests in a log, and what would be different from the limits of today."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ratelimit.config.policies import Concurrency, Policy
from ratelimit.config.settings import RateLimitSettings
from ratelimit.model.identity import Identity
from ratelimit.rehearsal.access_log import AccessLog, LogCounts
from ratelimit.rehearsal.callers import LogCallers
from ratelimit.rehearsal.engine import Outcome, RehearsalEngine, seconds_of
from ratelimit.rehearsal.log_records import LogRecord
from ratelimit.rehearsal.places import LogPlaces
from ratelimit.resolver.endpoint import Endpoint

MAX_CALLERS: Final = 100_000
"""Callers and routes that are counted apart; all others are one, `OTHERS`."""

OTHERS: Final = "(others)"
_MINUTE_US: Final = 60_000_000
_TOO_MANY_REQUESTS: Final = 429
_FORBIDDEN: Final = 403


@dataclass(slots=True)
class PolicyTally:
    """What one policy has checked and refused; in shadow, what it would have refused."""

    checks: int = 0
    refused: int = 0
    shadow: int = 0
    longest_wait: float | None = 0.0


@dataclass(slots=True)
class CallerTally:
    """The requests of one caller, or of one route: how many were refused, newly refused, newly admitted; since when, and how long."""

    requests: int = 0
    refused: int = 0
    newly_refused: int = 0
    newly_admitted: int = 0
    first_refused: int | None = None
    longest_wait: float | None = 0.0


@dataclass(slots=True)
class Tally:
    """What came of a replay. `minutes` are requests and refusals by minute since the epoch."""

    requests: int = 0
    refused: int = 0
    newly_refused: int = 0
    newly_admitted: int = 0
    refused_before: int = 0
    with_duration: int = 0
    with_status: int = 0
    policies: dict[str, PolicyTally] = field(default_factory=dict)
    callers: dict[str, CallerTally] = field(default_factory=dict)
    routes: dict[str, CallerTally] = field(default_factory=dict)
    minutes: dict[int, list[int]] = field(default_factory=dict)
    checked: dict[int, list[Any]] = field(default_factory=dict)

    def count(self, record: LogRecord, caller: str, route: str, outcome: Outcome, *, was_refused: bool) -> None:
        """Count one request; `was_refused` is what is refused today."""
        self.requests += 1
        refused = outcome.is_refused
        minute = self.minutes.get(record.at // _MINUTE_US)
        if minute is None:
            minute = self.minutes[record.at // _MINUTE_US] = [0, 0]
        minute[0] += 1
        self.with_duration += record.ends > record.at
        self.with_status += record.status > 0
        for found in (_bounded(self.callers, caller), _bounded(self.routes, route)):
            found.requests += 1
            if refused or was_refused:
                _count_flip(found, record, outcome, was_refused=was_refused)
        charges = outcome.charges
        checked = self.checked.get(id(charges))
        if checked is None:
            if len(self.checked) >= MAX_CALLERS:
                self.close()
            checked = self.checked[id(charges)] = [charges, 0]
        checked[1] += 1
        if outcome.has_waits:
            self._count_refusals(outcome)
        if refused or was_refused:
            self.refused += refused
            minute[1] += refused
            self.refused_before += was_refused
            self.newly_refused += refused and not was_refused
            self.newly_admitted += was_refused and not refused

    def _count_refusals(self, outcome: Outcome) -> None:
        for charge, wait in zip(outcome.charges, outcome.waits, strict=True):
            if wait > 0:
                tally = self.policies.setdefault(charge.limit.policy, PolicyTally())
                tally.shadow += charge.limit.shadow
                tally.refused += not charge.limit.shadow
                tally.longest_wait = longer(tally.longest_wait, seconds_of(wait))

    def close(self) -> None:
        """Add up the checks of each policy, which are counted by the lists of charges: those of a caller are one and the same."""
        for charges, number in self.checked.values():
            for charge in charges:
                self.policies.setdefault(charge.limit.policy, PolicyTally()).checks += number
        self.checked.clear()


def _bounded(tallies: dict[str, CallerTally], name: str) -> CallerTally:
    found = tallies.get(name)
    if found is None:
        if len(tallies) >= MAX_CALLERS:
            name = OTHERS
        found = tallies.setdefault(name, CallerTally())
    return found


def _count_flip(tally: CallerTally, record: LogRecord, outcome: Outcome, *, was_refused: bool) -> None:
    if outcome.is_refused:
        tally.refused += 1
        tally.newly_refused += not was_refused
        tally.first_refused = tally.first_refused or record.at
        pairs = zip(outcome.charges, outcome.waits, strict=True)
        for wait in [wait for charge, wait in pairs if wait > 0 and not charge.limit.shadow]:
            tally.longest_wait = longer(tally.longest_wait, seconds_of(wait))
    else:
        tally.newly_admitted += 1


def longer(one: float | None, other: float | None) -> float | None:
    """Return the longer of two waits; `None`, for which waiting does not help, is the longest."""
    return None if one is None or other is None else max(one, other)


class Replay:
    """Replays logs under `settings`, and under `against` beside them, the settings of today.

    Endpoints are found by the `app`, or by `routes`. Without `against`, a request is refused today where the log says 429,
    or, of an app with quotas, 403.
    """

    def __init__(
        self,
        settings: RateLimitSettings,
        callers: LogCallers,
        *,
        against: RateLimitSettings | None = None,
        app: Any = None,
        routes: Sequence[str] = (),
    ) -> None:
        self._callers, self._has_quotas = callers, bool(settings.quotas)
        self._new = _Side(settings, app, routes)
        self._old = None if against is None else _Side(against, app, routes)
        self.tally = Tally()

    def run(self, log: AccessLog) -> Tally:
        """Replay a log, and return what came of it."""
        for _ in self.outcomes(log):
            pass
        return self.tally

    def outcomes(self, log: AccessLog) -> Iterator[tuple[LogRecord, Outcome]]:
        """Replay a log, and yield each request with what is decided."""
        refusals = (_TOO_MANY_REQUESTS, _FORBIDDEN) if self._has_quotas else (_TOO_MANY_REQUESTS,)
        tally, new, old, find = self.tally, self._new, self._old, self._callers.find
        for record in log.records():
            identity, caller = find(record)
            endpoint, outcome = new.decide(record, identity)
            was_refused = old.decide(record, identity)[1].is_refused if old else record.status in refusals
            tally.count(record, caller, endpoint.label, outcome, was_refused=was_refused)
            yield record, outcome
        tally.close()

    @property
    def not_rehearsed(self) -> list[dict[str, str]]:
        """The policies that were not rehearsed, or only in part, and why."""
        found = []
        for compiled in self._new.engine.resolver.named.compiled():
            why = self._why_not(compiled.policy)
            if why:
                found.append({"policy": compiled.policy.name, "why": why})
        return found

    def notes(self, counts: LogCounts) -> list[str]:
        """Return what has to be known to read the numbers."""
        return [*notes_on(counts), *self._notes_on_requests()]

    def _why_not(self, policy: Policy) -> str:
        return next(self._reasons(policy, self.tally.policies.get(policy.name, PolicyTally()).checks), "")

    def _reasons(self, policy: Policy, checks: int) -> Iterator[str]:
        if policy.manual:
            yield "it is charged by its name alone"
        if policy.key is not None:
            yield "its key is a function of the request, which the log does not have"
        if isinstance(policy, Concurrency) and not self.tally.with_duration:
            yield "the log has no durations, so that no two requests are under way at once"
        if not checks:
            yield self._why_never(policy)
        if callable(policy.cost):
            yield "its cost is a function of the request, and was taken as 1"
        if policy.refund_on and not self.tally.with_status:
            yield "the log has no statuses, so that nothing was given back"

    def _why_never(self, policy: Policy) -> str:
        wanted = {*policy.per} - {"endpoint", "method"}
        if missing := sorted(wanted - self._new.dimensions):
            return f"no request of the log has {', no '.join(missing)}"
        return "no request of the log was for its endpoints"

    def _notes_on_requests(self) -> Iterator[str]:
        tally = self.tally
        if unknown := self._new.places.unknown:
            yield f"{unknown:,} requests were for no route that is known: they share one counter for each method"
        if len(tally.callers) >= MAX_CALLERS:
            yield f"more than {MAX_CALLERS:,} callers: the others are counted as one"
        if self._new.engine.quiet.dropped or len(self._new.engine.store) >= self._new.engine.store.max_keys:
            yield f"more than {self._new.engine.store.max_keys:,} counters: those unused for longest were dropped"
        if not tally.requests:
            yield "the log has no requests"
        if tally.refused:
            yield "a caller that is refused would have behaved otherwise: it waits, tries again, or gives up"


class _Side:
    """One of the two settings that are compared."""

    def __init__(self, settings: RateLimitSettings, app: Any, routes: Sequence[str]) -> None:
        self.engine = RehearsalEngine(settings)
        self.places = LogPlaces(self.engine.resolver, app, routes)
        self.dimensions: set[str] = set()
        self._known: set[int] = set()

    def decide(self, record: LogRecord, identity: Identity) -> tuple[Endpoint, Outcome]:
        endpoint, policies = self.places.find(record.method, record.path)
        if id(identity) not in self._known and len(self._known) < MAX_CALLERS:
            self._known.add(id(identity))
            self.dimensions |= _dimensions_of(identity)
        return endpoint, self.engine.decide(record, identity, policies)


def _dimensions_of(identity: Identity) -> set[str]:
    own: Mapping[str, object] = {
        "token": identity.token,
        "org": identity.org,
        "ip": identity.ip,
        "plan": identity.plan,
    }
    return {name for name, value in own.items() if value} | set(identity.dimensions)


def notes_on(counts: LogCounts) -> Iterator[str]:
    """Yield what was strange about a log."""
    yield from (f"{path} ends too early: it is used as far as it goes" for path in counts.broken)
    if counts.unreadable:
        share = counts.unreadable / max(1, counts.lines)
        yield f"{counts.unreadable:,} of {counts.lines:,} lines could not be read ({share:.2%})"
    if counts.untimed:
        yield f"{counts.untimed:,} lines have no time that can be read: let the server write one, or name its field (--field time=…)"
    if counts.late:
        yield f"{counts.late:,} requests are taken for younger than they are: their lines came more than a minute late"
    if counts.jumps:
        yield f"the log's clock jumps, {counts.jumps:,} times: counting goes on from there"
    if counts.whole_seconds:
        yield "the log has whole seconds: requests of one second were spread evenly over it (--span tells how much that matters)"
