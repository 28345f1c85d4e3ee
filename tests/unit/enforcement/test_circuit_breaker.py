"""The circuit breaker: closed, open and half-open, in virtual time."""

import asyncio
from typing import Any

import pytest

from ratelimit import StoreError
from ratelimit.enforcement.circuit_breaker import FAILURE_THRESHOLD, PROBE_INTERVAL, CircuitBreaker
from tests.support.virtual_time import VirtualLoop, virtually


class Probed:
    """A breaker on a store that is down or up, and when (seconds) what was called."""

    def __init__(self, **options: Any) -> None:
        self.is_down = True
        self.probed: list[float] = []
        self.events: list[str] = []
        self.recovery = asyncio.Event()
        self.recovery.set()
        self.breaker = CircuitBreaker(
            "the store",
            unavailable="worse",
            available="well",
            probe=self._probe,
            recover=self._recover,
            on_closed=self._on_closed,
            **options,
        )

    def open(self) -> CircuitBreaker:
        """Let calls fail until the breaker is open."""
        for _ in range(FAILURE_THRESHOLD):
            self.breaker.record_failure(StoreError("down"))
        return self.breaker

    async def _probe(self) -> None:
        self.probed.append(round(asyncio.get_running_loop().time(), 3))
        if self.is_down:
            raise StoreError("down")

    async def _recover(self) -> None:
        self.events.append(f"recover while {self.breaker.state}")
        await self.recovery.wait()

    async def _on_closed(self) -> None:
        self.events.append(f"on_closed while {self.breaker.state}")


async def test_consecutive_failures_open_the_breaker() -> None:
    """A success in between begins the count again."""
    breaker = Probed().breaker
    for _ in range(2):
        for _ in range(FAILURE_THRESHOLD - 1):
            breaker.record_failure(StoreError("down"))
        assert (breaker.state, breaker.is_open, breaker.has_failures) == ("closed", False, True)
        breaker.record_success()
        assert not breaker.has_failures
    for _ in range(FAILURE_THRESHOLD):
        breaker.record_failure(StoreError("down"))
    assert (breaker.state, breaker.is_open) == ("open", True)
    breaker.stop()


async def test_failures_of_one_call_count_once() -> None:
    """Requests that travelled together have errors of one cause; errors without a cause are failures of their own."""
    breaker = Probed().breaker

    def failure(cause: StoreError) -> StoreError:
        error = StoreError("down")
        error.__cause__ = cause
        return error

    for _ in range(FAILURE_THRESHOLD - 1):
        cause = StoreError("one call")
        for _ in range(20):
            breaker.record_failure(failure(cause))
    assert not breaker.is_open
    breaker.record_failure(failure(StoreError("another call")))
    assert breaker.state == "open"
    breaker.stop()


def test_an_open_breaker_probes_until_the_store_is_available() -> None:
    """Every 0.2 s, and no more when it is closed; then requests are served by the store again."""

    async def play(loop: VirtualLoop) -> None:
        probed = Probed()
        breaker = probed.open()
        assert (breaker.is_probing, probed.probed) == (True, [])
        await asyncio.sleep(3.5 * PROBE_INTERVAL)
        assert probed.probed == [0.2, 0.4, 0.6]
        assert breaker.state == "open"
        probed.is_down = False
        await asyncio.sleep(10)
        assert probed.probed == [0.2, 0.4, 0.6, 0.8]
        assert probed.events == ["recover while half-open", "on_closed while closed"]
        assert (breaker.state, breaker.is_open, breaker.is_probing) == ("closed", False, False)

    virtually(play)


def test_a_half_open_breaker_lets_no_request_wait_for_the_store() -> None:
    """Until recovery has ended; further successes start no second recovery, and the store is not probed during it."""

    async def play(loop: VirtualLoop) -> None:
        probed = Probed()
        breaker, probed.is_down = probed.open(), False
        probed.recovery.clear()
        assert await breaker.probe()
        await asyncio.sleep(5)
        breaker.record_success()
        await asyncio.sleep(5)
        assert (breaker.state, breaker.is_open, breaker.is_recovering) == ("half-open", True, True)
        assert (len(probed.probed), probed.events) == (1, ["recover while half-open"])
        probed.recovery.set()
        await asyncio.sleep(0.1)
        assert (breaker.state, breaker.is_open, breaker.is_recovering) == ("closed", False, False)

    virtually(play)


def test_reopen_ends_a_recovery() -> None:
    """The breaker does not close when `recover` returns, and probes again."""

    async def play(loop: VirtualLoop) -> None:
        probed = Probed()
        breaker, probed.is_down = probed.open(), False
        probed.recovery.clear()
        await breaker.probe()
        await asyncio.sleep(0)
        breaker.reopen(StoreError("down again"))
        assert (breaker.state, breaker.is_recovering) == ("open", False)
        probed.is_down = True
        probed.recovery.set()
        await asyncio.sleep(3)
        assert breaker.state == "open"
        assert "on_closed while closed" not in probed.events
        assert len(probed.probed) > 10
        probed.is_down = False
        await asyncio.sleep(1)
        assert (breaker.state, probed.events[-1]) == ("closed", "on_closed while closed")

    virtually(play)


def test_a_recovery_that_raises_leaves_the_breaker_open() -> None:
    """The next probe starts another one."""

    async def play(loop: VirtualLoop) -> None:
        loop.set_exception_handler(lambda *_: None)  # It would log the error of the background task.
        fails = [True]

        async def probe() -> None:
            pass

        async def recover() -> None:
            if fails:
                fails.pop()
                raise ZeroDivisionError

        breaker = CircuitBreaker("s", unavailable="", available="", probe=probe, recover=recover, threshold=1)
        breaker.record_failure(StoreError("down"))
        await asyncio.sleep(0.3)
        assert breaker.state == "open"
        await asyncio.sleep(0.2)
        assert not breaker.is_open

    virtually(play)


def test_each_event_loop_probes_for_itself() -> None:
    """A timer of a loop that does not run cannot help the others; the success of one closes the breaker for all."""
    probed = Probed()
    breaker = probed.breaker

    async def fail() -> None:
        probed.open()
        assert breaker.is_probing

    async def ask() -> None:
        assert not breaker.is_probing
        breaker.schedule_probe()
        assert breaker.is_probing
        await asyncio.sleep(0.5)
        probed.is_down = False
        await asyncio.sleep(0.5)

    with asyncio.Runner(loop_factory=VirtualLoop) as one, asyncio.Runner(loop_factory=VirtualLoop) as two:
        one.run(fail())
        two.run(ask())
        assert (breaker.state, probed.probed) == ("closed", [0.2, 0.4, 0.6])


def test_a_stopped_breaker_probes_no_more() -> None:
    """In the event loop that stopped it; `start` allows it again."""

    async def play(loop: VirtualLoop) -> None:
        probed = Probed()
        breaker = probed.open()
        breaker.stop()
        assert (breaker.is_stopped, breaker.is_probing) == (True, False)
        breaker.schedule_probe()
        await asyncio.sleep(5)
        assert probed.probed == []
        assert not await breaker.probe()
        breaker.start()
        breaker.schedule_probe()
        await asyncio.sleep(0.3)
        assert (breaker.is_stopped, probed.probed) == (False, [5.0, 5.2])
        breaker.stop()

    virtually(play)


def test_an_outage_is_two_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One at the first failure, one when the breaker closes, however many calls fail between them."""

    async def play(loop: VirtualLoop) -> None:
        probed = Probed()
        for _ in range(3):
            probed.open()
        await asyncio.sleep(3)
        probed.is_down = False
        await asyncio.sleep(3)

    for _ in range(2):
        caplog.clear()
        virtually(play)
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("ERROR", "store unavailable: down 'the store'; worse [RL401]"),
            ("WARNING", "store available: 'the store'; well [RL402]"),
        ]


async def test_failures_below_the_threshold_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    """A single failure and the next success are one line each; a success without a failure is none."""
    breaker = CircuitBreaker("s", unavailable="a", available="b")
    breaker.record_success()
    for _ in range(2):
        breaker.record_failure(StoreError("down"))
    breaker.record_success()
    breaker.record_success()
    assert caplog.messages == ["store unavailable: down 's'; a [RL401]", "store available: 's'; b [RL402]"]


async def test_a_breaker_without_a_probe_only_counts() -> None:
    """The next success closes it at once."""
    breaker = CircuitBreaker("s", unavailable="", available="", threshold=1)
    breaker.record_failure(StoreError("down"))
    breaker.schedule_probe()
    assert (breaker.state, breaker.is_probing) == ("open", False)
    breaker.record_success()
    assert breaker.state == "closed"
