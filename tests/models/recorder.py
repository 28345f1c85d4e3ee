"""Records what several callers of a store saw, and when; also as a process of its own (`python -m tests.models.recorder`)."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratelimit import RedisStore, StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit
from tests.models.linearizability import NEVER, Event, unexplained
from tests.models.sequential import counter, permits

LIMIT = 6
LIMITS: dict[str, EffectiveLimit] = {
    "quota": quota_limit(LIMIT, "year"),
    "window": window_limit(LIMIT, 86_400),
    "concurrency": concurrency_limit(LIMIT, 3_600_000),
}
_NAMES = {"quota": ("charge", "adjust"), "window": ("charge", "adjust"), "concurrency": ("acquire", "release")}


@dataclass
class Recorder:
    """Calls a store for one caller after another, and keeps for each key what was called, when, and how it ended."""

    store: RedisStore
    seed: int
    history: list[tuple[str, Event]] = field(default_factory=list)
    corrections: list[tuple[str, Event]] = field(default_factory=list)

    async def record(self, keys: Sequence[str], callers: int, calls: int) -> None:
        """Let callers call side by side; then find out what became of the calls without a reply."""
        await asyncio.gather(*(self._caller(keys, self.seed * 100 + number, calls) for number in range(callers)))
        ends = time.monotonic() + 30
        await self.store.drain()
        while not await self.store.resolve_in_doubt() or not self.store.client.is_settled:
            assert time.monotonic() < ends, "calls remain in doubt"
            await asyncio.sleep(0.01)  # The servers are real.
        # A charge in doubt that was executed is known by now, and all others never will be. Corrections were completed.
        now = time.monotonic_ns()
        self.history += [(key, event._replace(returned=now)) for key, event in self.corrections]

    async def _caller(self, keys: Sequence[str], seed: int, calls: int) -> None:
        chance, held = random.Random(seed), list[tuple[str, int, int]]()
        for number in range(calls):
            kind = chance.choice(list(LIMITS))
            key, holder = f"{chance.choice(keys)}:{kind}", seed * 10_000 + number + 1
            mine = [each for each in held if each[0].endswith(kind)]
            what = chance.random()
            if mine and what < 0.45:
                key, holder, charged_at = mine[0]
                held.remove(mine[0])
                await self._call(key, kind, Operation.ADJUST, holder, charged_at)
            elif what < 0.9:
                operation = Operation.ACQUIRE if kind == "concurrency" else Operation.CHARGE
                if charged_at := await self._call(key, kind, operation, holder):
                    held.append((key, holder, charged_at))
            else:
                await self._call(key, kind, Operation.PEEK, 0)

    async def _call(self, key: str, kind: str, operation: Operation, holder: int, charged_at: int = 0) -> int:
        """Make one call, and record it; return when it was admitted by the store's clock (0: it was not)."""
        is_correction = operation == Operation.ADJUST
        name = "read" if operation == Operation.PEEK else _NAMES[kind][is_correction]
        amount = holder if kind == "concurrency" else 0 if name == "read" else -1 if is_correction else 1
        event = Event(time.monotonic_ns(), NEVER, (name, amount))

        def found(request: StoreRequest, reply: StoreReply | None) -> None:
            if reply is not None and not request.is_refused(reply):
                self._answered(key, event, request, reply)

        charge = Charge(LIMITS[kind], key, -1 if is_correction else 1)
        on_orphaned = found if operation in (Operation.CHARGE, Operation.ACQUIRE) else None
        request = StoreRequest([charge], operation, holder, charged_at, on_orphaned)
        try:
            reply = await self.store.submit(request)
        except StoreError as error:
            if is_correction and not error.was_not_sent:
                self.corrections.append((key, event))
            return 0
        self._answered(key, event, request, reply)
        return 0 if request.is_refused(reply) else reply.store_ms

    def _answered(self, key: str, event: Event, request: StoreRequest, reply: StoreReply) -> None:
        is_read = request.operation == Operation.PEEK
        output = is_read or not request.is_refused(reply), reply.readings[0][0]
        self.history.append((key, event._replace(returned=time.monotonic_ns(), output=output)))


@dataclass(frozen=True)
class Work:
    """What each process does: so many callers, side by side, make so many calls each, at keys of these owners."""

    url: str
    keys: Sequence[str]
    callers: int
    calls: int

    async def record(self, seed: int) -> list[tuple[str, Event]]:
        """Record the callers of one process, at a store of their own."""
        store = RedisStore(self.url, timeout=0.2)
        recorder = Recorder(store, seed)
        await recorder.record(self.keys, self.callers, self.calls)
        await store.aclose()
        return recorder.history

    async def record_with_processes(self, processes: int) -> list[list[tuple[str, Event]]]:
        """Record callers of this process, and of others that begin with it: the clock is the machine's."""
        ready = asyncio.Barrier(processes + 1)

        async def here() -> list[tuple[str, Event]]:
            await ready.wait()
            return await self.record(0)

        return await asyncio.gather(here(), *(self._record_process(seed + 1, ready) for seed in range(processes)))

    async def _record_process(self, seed: int, ready: asyncio.Barrier) -> list[tuple[str, Event]]:
        command = sys.executable, "-m", "tests.models.recorder", json.dumps([seed, vars(self)])
        pipe = asyncio.subprocess.PIPE
        root = Path(__file__).parents[2]
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=root)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        await ready.wait()
        written, _ = await process.communicate(b"go\n")
        assert process.returncode == 0
        return [(key, _read(event)) for key, event in json.loads(written)]


def by_key(histories: Sequence[list[tuple[str, Event]]]) -> dict[str, list[Event]]:
    """Return the history of each key: a limit is linearizable if each of its keys is."""
    found: dict[str, list[Event]] = {}
    for key, event in (each for history in histories for each in history):
        found.setdefault(key, []).append(event)
    return found


def not_linearizable(histories: Mapping[str, Sequence[Event]]) -> dict[str, Sequence[Event]]:
    """Return the keys whose history no order of its calls explains, with the first events that it does not explain."""
    found: dict[str, Sequence[Event]] = {}
    for key, history in histories.items():
        is_counter = not key.endswith("concurrency")
        if left := unexplained(history, counter(LIMIT)) if is_counter else unexplained(history, permits(LIMIT)):
            found[key] = sorted(left)[:20]
    return found


def _read(event: list[Any]) -> Event:
    called, returned, call, output = event
    return Event(called, returned, tuple(call), None if output is None else tuple(output))


def _main() -> None:
    seed, work = json.loads(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(asyncio.run(Work(**work).record(seed))))


if __name__ == "__main__":
    _main()
