"""The engine: `rehearsal.engine`, `rehearsal.places` and `rehearsal.callers` decide by the log's clock, and give back what the server gives back."""

from pathlib import Path

import pytest

from ratelimit import Concurrency, ConfigurationError, Identity, Limit, Quota, RateLimitSettings
from ratelimit.rehearsal.callers import CallerFields, LogCallers, read_owners
from ratelimit.rehearsal.engine import RehearsalEngine, seconds_of
from ratelimit.rehearsal.log_records import LogRecord
from ratelimit.rehearsal.places import LogPlaces

SECOND = 1_000_000
START = 1_795_000_000 * SECOND


def record(
    at: float, lasts: float = 0.0, status: int = 200, path: str = "/", fields: dict[str, str] | None = None
) -> LogRecord:
    begins = START + round(at * SECOND)
    return LogRecord(begins, begins + round(lasts * SECOND), "GET", path, status, False, fields or {})


def decisions(settings: RateLimitSettings, *records: LogRecord) -> list[bool]:
    engine = RehearsalEngine(settings)
    places = LogPlaces(engine.resolver)
    found = [engine.decide(each, Identity(token="t"), places.find(each.method, each.path)[1]) for each in records]
    return [outcome.is_refused for outcome in found]


def test_permits_are_held_until_the_request_has_ended() -> None:
    """Also those of a request that is longer than the lease: the server renews it."""
    settings = RateLimitSettings(concurrency=[Concurrency(name="n", limit=1, per="token", lease=10)])
    assert decisions(settings, record(0, 60), record(59, 1), record(60, 5), record(64.9), record(65)) == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_what_a_status_refunds_is_given_back_at_the_end() -> None:
    """Of a limit and of a quota."""
    settings = RateLimitSettings(
        limits=[Limit(name="l", rate="2/minute", per="token", refund_on=[500])],
        quotas=[Quota(name="q", limit=3, period="day", per="token")],
    )
    asked = [record(0, 1, 500), record(0.5, 1, 500), record(0.9), record(2), record(3)]
    assert decisions(settings, *asked) == [False, False, True, False, True]


def test_exempt_endpoints_and_shadows_refuse_nothing() -> None:
    """The wait of a shadow is there all the same."""
    settings = RateLimitSettings(limits=[Limit(name="s", rate="1/minute", per="token", shadow=True)], exempt=["/free"])
    engine = RehearsalEngine(settings)
    places = LogPlaces(engine.resolver, routes=["/x"])
    first, second, free = (
        engine.decide(each, Identity(token="t"), places.find("GET", each.path)[1])
        for each in (record(0, path="/x"), record(1, path="/x"), record(2, path="/free"))
    )
    assert (first.has_waits, second.is_refused, second.waits[0], free.charges) == (False, False, 59_001, ())
    assert (seconds_of(59_001), seconds_of(2**53 - 1)) == (59.001, None)


def test_places_are_those_of_templates_or_unknown() -> None:
    """A parameter is one segment, with or without a convertor; unknown paths are counted."""
    places = LogPlaces(
        RehearsalEngine(RateLimitSettings()).resolver, routes=["/a/{id:int}", "/files/*", "/p/{rest:path}"]
    )
    labels = [
        places.find("GET", path)[0].label for path in ("/a/1", "/a/1/b", "/files/x/y", "/a/2", "/p/x/y", "/nowhere")
    ]
    assert labels == ["GET /a/{id}", "*", "GET /files/*", "GET /a/{id}", "GET /p/{rest}", "*"]
    assert places.unknown == 2


def test_callers_are_named_by_the_fields_of_the_log(tmp_path: Path) -> None:
    """A scheme before a token and a port after an address are left out; a list tells the owners of tokens.

    Of IPv6 it is the network that names a client, as it is in the middleware.
    """
    owners = tmp_path / "keys.csv"
    owners.write_text("token,org,plan\nk1,acme,pro\nk2,,\n")
    fields = CallerFields(token="key", org="org", dimensions={"teamspace": "ts"})
    callers = LogCallers(fields, read_owners(str(owners)))
    found = [
        callers.find(record(0, fields=given))
        for given in (
            {"key": "Bearer k1", "remote_addr": "192.0.2.1:80"},
            {"key": "k2", "org": "own", "ts": "t1"},
            {"remote_addr": "[2001:db8::1]:443"},
            {"remote_addr": "2001:db8::2"},
            {},
        )
    ]
    assert [name for _, name in found] == ["k1", "k2", "2001:db8::/64", "2001:db8::/64", "unknown"]
    assert found[0][0] == Identity(token="k1", org="acme", plan="pro", ip="192.0.2.1")
    assert found[1][0] == Identity(token="k2", org="own", dimensions={"teamspace": "t1"})
    own = LogCallers(fields, identify=lambda line: Identity(org=line.fields["key"]) if "key" in line.fields else None)
    assert [own.find(record(0, fields={"key": "a"}))[1], own.find(record(0))[1]] == ["a", "unknown"]


@pytest.mark.parametrize(("text", "message"), [("a,b\n", "needs the columns token"), (None, "No such file")])
def test_a_list_of_owners_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    """With what it needs."""
    if text is not None:
        (tmp_path / "keys.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_owners(str(tmp_path / "keys.csv"))
