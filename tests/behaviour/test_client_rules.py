"""The promise: both transports obey the rules for clients of a limited API, over real HTTP, whatever the policy."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import pytest

from ratelimit import Throttle
from ratelimit.client import (
    CONTRACT_A,
    CONTRACT_B,
    DEFAULT_RETRY_POLICY,
    AsyncRetryTransport,
    AsyncThrottleTransport,
    RetryPolicy,
    RetryTransport,
    ThrottleTransport,
)
from tests.behaviour.test_sync_async_parity import AsyncResting, Resting
from tests.support.uvicorn_server import uvicorn

POLICIES = {"default": None, "A": CONTRACT_A, "B": CONTRACT_B}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with uvicorn({}, app="tests.support.scripted_calls:app") as url:
        yield url


class Outcome(NamedTuple):
    """The responses that a caller gets, and the pauses before each of them."""

    responses: list[httpx.Response]
    pauses: list[tuple[float, ...]]


Fetch = Callable[..., Awaitable[Outcome]]


def _blocking(url: str, times: int = 1, *, headers: dict[str, str], **options: Any) -> Outcome:
    transport, made = Resting(**options), Outcome([], [])
    with httpx.Client(transport=transport) as client:
        for _ in range(times):
            made.responses.append(client.get(url, headers=headers))
            made.pauses.append(tuple(transport.time.pauses))
            transport.time.pauses.clear()
    return made


async def _sync(*arguments: Any, **options: Any) -> Outcome:
    return await asyncio.to_thread(_blocking, *arguments, **options)


async def _asynchronous(url: str, times: int = 1, *, headers: dict[str, str], **options: Any) -> Outcome:
    transport, made = AsyncResting(**options), Outcome([], [])
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(times):
            made.responses.append(await client.get(url, headers=headers))
            made.pauses.append(tuple(transport.time.pauses))
            transport.time.pauses.clear()
    return made


@pytest.fixture(params=[_sync, _asynchronous], ids=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Return a function that sends a request some times in turn, by the sync and by the async transport."""
    return request.param  # type: ignore[no-any-return]


def options_of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the options of a transport with the policy of that name; that of the default is left out."""
    policy = POLICIES[name]
    if changes:
        policy = replace(policy or DEFAULT_RETRY_POLICY, **changes)
    return {} if policy is None else {"policy": policy}


def dictate(name: str, answers: str) -> dict[str, str]:
    return {"x-call": name, "x-answers": answers}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if (each.name, each.levelname) == ("ratelimit", "WARNING")]


async def test_contract_a_waits_half_as_long_again(server: str, fetch: Fetch) -> None:
    """Each wait is 1.5 times the one before, plus 50 to 500 ms, unless the server names a longer one."""
    headers = dictate(f"a-{fetch.__name__}", "429;retry-after=4 429 429;retry-after=1 429;retry-after=40 429 200")
    made = await fetch(server, headers=headers, **options_of("A"))
    assert [each.status_code for each in made.responses] == [200]
    expected, previous = [], 0.0
    for wait, named in zip(made.pauses[0], (4, 0, 1, 40, 0), strict=True):
        expected.append(max(named, 1.5 * previous))
        assert 0.05 <= round(wait - expected[-1], 5) <= 0.5
        previous = wait


@pytest.mark.parametrize("name", POLICIES)
async def test_a_wait_above_the_bound_goes_to_the_caller_and_is_told(
    server: str, fetch: Fetch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, with one warning that names wait, bound and host, and none of the caller's secrets; the response says it too."""
    headers = {"authorization": "Bearer secret", **dictate(f"bound-{name}-{fetch.__name__}", "429;retry-after=121 200")}
    url = server.replace("//", "//user:secret@") + "/path/secret?key=secret#secret"
    with caplog.at_level(logging.INFO, "ratelimit"):
        made = await fetch(url, headers=headers, **options_of(name))
    ((response,), pauses) = made
    assert (response.status_code, pauses) == (429, [()])
    assert response.extensions["ratelimit"] == {"attempts": 1, "waited": 0.0, "retry_after": 121.0, "max_wait": 120.0}
    (warning,) = warnings(caplog)
    assert warning == (
        f"{httpx.URL(server).host}: the response 429 asks for a wait of 121 s, more than max_wait=120 s: "
        "the caller gets it, and the request is not sent again [RL707]"
    )


async def test_it_is_told_once_for_each_call(server: str, fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    """After earlier waits too, and again for the next call; a wait of exactly the bound is made."""
    headers = dictate(
        f"once-{fetch.__name__}", "429;retry-after=1 429;retry-after=5.1 429;retry-after=5.1 429;retry-after=5 200"
    )
    made = await fetch(server, 3, headers=headers, **options_of("B", max_wait=5, slow_below=None))
    assert [each.status_code for each in made.responses] == [429, 429, 200]
    assert made.pauses == [(1,), (), (5,)]
    assert [each.extensions["ratelimit"] for each in made.responses] == [
        {"attempts": 2, "waited": 1.0, "retry_after": 5.1, "max_wait": 5.0},
        {"attempts": 1, "waited": 0.0, "retry_after": 5.1, "max_wait": 5.0},
        {"attempts": 2, "waited": 5.0},
    ]
    assert len(warnings(caplog)) == 2


async def test_what_is_not_retried_anyway_is_no_warning(
    server: str, fetch: Fetch, caplog: pytest.LogCaptureFixture
) -> None:
    """A 403, a policy without retries, and a request whose retries are used up: the bound is not the reason."""
    for number, (answer, policy) in enumerate(
        (
            ("403;retry-after=999", RetryPolicy()),
            ("429;retry-after=999", RetryPolicy(retries=0)),
            ("429;retry-after=1", RetryPolicy(retries=1)),
            ("200;retry-after=999", RetryPolicy()),
        )
    ):
        made = await fetch(server, headers=dictate(f"no-{number}-{fetch.__name__}", answer), policy=policy)
        assert made.responses[0].extensions["ratelimit"].keys() == {"attempts", "waited"}
    assert warnings(caplog) == []


def left(remaining: int) -> str:
    return f"200;x-ratelimit-limit=100;x-ratelimit-remaining={remaining};x-ratelimit-reset=60"


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("remaining", "pauses"), [(10, ()), (9, (6.0,)), (5, (10.0,)), (1, (30.0,)), (0, (60.0,))])
async def test_below_a_tenth_of_a_limit_requests_are_spread(
    server: str, fetch: Fetch, name: str, remaining: int, pauses: tuple[float, ...]
) -> None:
    """Over the time until the reset, by each policy and without one; from a tenth on, requests go at once."""
    headers = dictate(f"left-{name}-{remaining}-{fetch.__name__}", left(remaining))
    made = await fetch(server, 2, headers=headers, **options_of(name))
    assert made.pauses == [(), pauses]
    assert made.responses[1].extensions["ratelimit"]["waited"] == sum(pauses)


async def test_a_policy_may_use_a_limit_up_at_once(server: str, fetch: Fetch) -> None:
    """With `slow_below=0.0` requests wait only while nothing remains, with `None` not even then."""
    for slow_below, remaining, pauses in ((0.0, 1, ()), (0.0, 0, (60.0,)), (None, 0, ())):
        headers = dictate(f"slow-{slow_below}-{remaining}-{fetch.__name__}", left(remaining))
        made = await fetch(server, 2, headers=headers, **options_of("B", slow_below=slow_below))
        assert made.pauses[1] == pauses


async def served(server: str, call: str) -> tuple[int, int]:
    """Return how many requests of a call the server has served at once, and how many in all."""
    async with httpx.AsyncClient() as client:
        peak, total = (await client.get(f"{server}/peak/{call}")).text.split()
    return int(peak), int(total)


async def send_async(server: str, call: str, transport: httpx.AsyncBaseTransport) -> set[int]:
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:
        answers = await asyncio.gather(*(client.get(f"{server}/threes", headers={"x-call": call}) for _ in range(30)))
    return {each.status_code for each in answers}


def send_sync(server: str, call: str, transport: httpx.BaseTransport) -> set[int]:
    statuses = set[int]()
    with httpx.Client(transport=transport, timeout=30) as client:

        def send() -> None:
            statuses.add(client.get(f"{server}/threes", headers={"x-call": call}).status_code)

        threads = [threading.Thread(target=send) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return statuses


FREE = replace(CONTRACT_B, slow_below=None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AsyncRetryTransport(max_concurrency=3),
        lambda: AsyncRetryTransport(max_concurrency=3, policy=FREE),
        lambda: AsyncThrottleTransport(Throttle(concurrency=3)),
        lambda: RetryTransport(max_concurrency=3),
        lambda: RetryTransport(max_concurrency=3, policy=FREE),
        lambda: ThrottleTransport(Throttle(concurrency=3)),
    ],
    ids=["async", "async free", "async throttle", "sync", "sync free", "sync throttle"],
)
async def test_no_more_requests_than_allowed_are_on_the_wire(
    server: str, make: Callable[[], httpx.AsyncBaseTransport | httpx.BaseTransport], request: pytest.FixtureRequest
) -> None:
    """The others wait, are served in the end, and leave no permit unused: the server answers three at a time."""
    transport, call = make(), request.node.callspec.id
    if isinstance(transport, httpx.AsyncBaseTransport):
        assert await send_async(server, call, transport) == {200}
    else:
        assert await asyncio.to_thread(send_sync, server, call, transport) == {200}
    assert await served(server, call) == (3, 30)


async def test_a_response_is_on_the_wire_until_it_is_closed(server: str) -> None:
    """A stream that its caller reads keeps its permit; the next request goes when it is closed."""
    headers = {"x-call": "stream"}
    async with httpx.AsyncClient(transport=AsyncRetryTransport(max_concurrency=1), timeout=30) as client:
        async with client.stream("GET", f"{server}/stream", headers=headers) as stream:
            assert await anext(stream.aiter_raw()) == b"first"
            waiting = asyncio.ensure_future(client.get(server, headers=headers))
            for _ in range(10):
                assert await served(server, "stream") == (1, 1)
        assert (await waiting).status_code == 200
    assert (await served(server, "stream"))[1] == 2


def test_a_response_is_on_the_wire_until_it_is_closed_for_threads(server: str) -> None:
    """As in an event loop."""
    headers, answers = {"x-call": "stream-sync"}, list[int]()
    with httpx.Client(transport=RetryTransport(max_concurrency=1), timeout=30) as client:
        with client.stream("GET", f"{server}/stream", headers=headers) as stream:
            assert next(stream.iter_raw()) == b"first"
            thread = threading.Thread(target=lambda: answers.append(client.get(server, headers=headers).status_code))
            thread.start()
            for _ in range(10):
                assert httpx.get(f"{server}/peak/stream-sync").text == "1 1"
        thread.join(30)
    assert answers == [200]
