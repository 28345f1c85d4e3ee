"""What one event loop holds open: connections to a server, or to the nodes of a Cluster."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

from ratelimit.charge import NEVER, Charge
from ratelimit.clock import Clock
from ratelimit.decision import Triple
from ratelimit.errors import StoreError, StorePartlyAway, StoreTimeout, StoreUnavailable
from ratelimit.stores.base import Answer, Op, Request
from ratelimit.stores.group_commit import GroupCommit, Told
from ratelimit.stores.line import Refused
from ratelimit.stores.mapped import mapped
from ratelimit.stores.node import ELSEWHERE_NOW, Node
from ratelimit.stores.topology import never_again
from ratelimit.stores.wire import ANY

_PAUSE: Final = 0.005
"""Seconds until a slot that is being moved is asked for again."""

_SELDOM: Final = 0.25
"""Seconds at least between two looks at how a Cluster is made up."""

_DOWN: Final = 0.3
"""Seconds for which nobody asks a node that did not answer."""


class Lane:
    """A lane to one server: calls that charge go over a node of ours, and redis-py's connections serve the rest."""

    def __init__(self, client: Any, timeout: float) -> None:
        self.client = client
        self._timeout = timeout

    async def submit(self, request: Request) -> Answer:
        """Do what is asked, together with whatever else waits."""
        raise NotImplementedError

    async def run(self, *command: Any) -> Any:
        """Run one command within the timeout; raises nothing but `StoreError`."""
        async with mapped(self._timeout):
            return await self.client.execute_command(*command)

    async def settle(self) -> bool:
        """Find out what became of the calls that nobody knows of, and say whether none is left."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Wait for the calls under way and close the connections."""
        await self.client.aclose()


class ServerLane(Lane):
    """A lane to a server, or to the master that Sentinels know."""

    def __init__(self, client: "redis.asyncio.Redis", clock: Clock | None, timeout: float) -> None:
        super().__init__(client, timeout)
        self.node = Node(client.connection_pool.make_connection, clock, timeout)
        self._commit = GroupCommit(self.node.send)

    async def submit(self, request: Request) -> Answer:
        """Do what is asked, together with whatever else waits."""
        return await self._commit.submit(request)

    async def settle(self) -> bool:
        """Find out what became of the calls that nobody knows of."""
        return await self.node.settle()

    async def aclose(self) -> None:
        """Wait for the calls under way and close the connections."""
        await self._commit.aclose()
        await self.node.aclose()
        await super().aclose()
        sentinels = getattr(self.client.connection_pool, "sentinel_manager", None)
        for sentinel in sentinels.sentinels if sentinels is not None else ():
            await sentinel.aclose()


class ClusterLane(Lane):
    """A lane to a Cluster: what is in one slot travels together, and all nodes are asked at once.

    A request whose keys are in several slots is charged slot by slot, and given back where a later one refuses or
    fails. Slots that have moved are followed; while one is being moved, it is asked for again until the timeout. Of a
    node that does not answer, one call in 0.3 s finds out whether it is back; others that need it fail at once.
    """

    def __init__(self, client: RedisCluster, clock: Clock | None, timeout: float) -> None:
        super().__init__(client, timeout)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[str, Node] = {}
        self._commits: dict[int, GroupCommit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = float("-inf")
        self._down: dict[str, float] = {}

    async def submit(self, request: Request) -> Answer:
        """Do what is asked in each slot, all or nothing where the operation is."""
        parts: dict[int, list[int]] = {}
        for place, charge in enumerate(request.charges):
            parts.setdefault(key_slot(charge.key.encode()), []).append(place)
        if len(parts) <= 1:
            slot = next(iter(parts), key_slot(ANY.encode()))
            return await self._commit(slot).submit(request)
        split = [
            (slot, places, request._replace(charges=[request.charges[n] for n in places]))
            for slot, places in parts.items()
        ]
        if request.op in (Op.CHARGE, Op.HOLD, Op.RELEASE):
            answers = await self._in_turn([(slot, part) for slot, _, part in split])
        else:
            answers = await asyncio.gather(*(self._commit(slot).submit(part) for slot, _, part in split))
        return _joined(answers, [places for _, places, _ in split])

    async def settle(self) -> bool:
        """Find out what became of the calls that nobody knows of."""
        return all([await node.settle() for node in list(self._nodes.values())])

    async def aclose(self) -> None:
        """Wait for the calls under way and close the connections."""
        for commit in self._commits.values():
            await commit.aclose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes.values():
            await node.aclose()
        await super().aclose()

    async def _in_turn(self, parts: Sequence[tuple[int, Request]]) -> list[Answer]:
        answers: list[Answer] = []
        try:
            for slot, part in parts:
                answers.append(await self._commit(slot).submit(part))
                if _refuses(part, answers[-1]):
                    break
        except BaseException:
            self._spawn(self._give_back(parts, answers))
            raise
        made, rest = answers[:-1], parts[len(answers) :]
        if not _refuses(parts[len(answers) - 1][1], answers[-1]):
            return answers
        given = await self._give_back(parts, made)
        asked = [self._commit(slot).submit(part._replace(op=Op.PEEK, abandoned=None)) for slot, part in rest]
        return [*given, answers[-1], *await asyncio.gather(*asked)]

    async def _give_back(self, parts: Sequence[tuple[int, Request]], answers: Sequence[Answer]) -> list[Answer]:
        given = []
        for (slot, part), answer in zip(parts, answers, strict=False):
            back = [_undone(charge) for charge, told in zip(part.charges, answer.numbers, strict=True) if told[2] <= 0]
            told = await self._commit(slot).submit(Request(back, Op.ADJUST, part.holder, answer.at))
            numbers = iter(told.numbers)
            given.append(answer._replace(numbers=[next(numbers) if each[2] <= 0 else each for each in answer.numbers]))
        return given

    def _commit(self, slot: int) -> GroupCommit:
        commit = self._commits.get(slot)
        if commit is None:
            commit = self._commits[slot] = GroupCommit(partial(self._send, slot))
        return commit

    def _send(self, slot: int, requests: Sequence[Request], then: Callable[[Told], None]) -> None:
        deadline = self._loop.time() + self._timeout
        self._spawn(self._route(slot, requests, then, deadline))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _route(
        self, slot: int, requests: Sequence[Request], then: Callable[[Told], None], deadline: float
    ) -> None:
        try:
            told = await self._asked(slot, requests, deadline)
            if isinstance(told, Exception) and not isinstance(told, Refused):
                self._look_around()
            elif isinstance(told, Refused) and told.code in ELSEWHERE_NOW:
                told = StorePartlyAway(str(told))  # Nothing was done.
            then(told)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            then(error)
        except BaseException:
            then(StoreError("the call to the store was cut off"))
            raise

    async def _asked(self, slot: int, requests: Sequence[Request], deadline: float) -> Told:
        """Ask the node of a slot, and those that it names instead."""
        asking: str | None = None
        while True:
            name, node = await self._node(slot, asking, deadline)
            if self._loop.time() < self._down.get(name, 0.0):
                return StorePartlyAway("a node of the Cluster is away")
            told = await _once(node, requests, deadline, asking=asking is not None)
            self._note(name, told)
            if not isinstance(told, Refused) or self._loop.time() + _PAUSE >= deadline:
                return told
            asking = told.text.rpartition(" ")[2] if told.code == "ASK" else None
            if told.code == "MOVED":
                await self.client.nodes_manager.move_slot(MovedError(told.text.partition(" ")[2]))
                self._look_around()
            elif told.code in ("TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN"):
                self._look_around()
                await asyncio.sleep(_PAUSE)
            elif asking is None:
                return told

    def _note(self, name: str, told: Told) -> None:
        if isinstance(told, (StoreTimeout, StoreUnavailable)):
            self._down[name] = self._loop.time() + _DOWN
        else:
            self._down.pop(name, None)

    async def _node(self, slot: int, address: str | None, deadline: float) -> tuple[str, Node]:
        """Return the node of a slot, or the one at an address, and its name."""
        async with mapped(deadline - self._loop.time()):
            await self.client.initialize()
            if address is None:
                found = self.client.nodes_manager.get_node_from_slot(slot)
            else:
                host, _, port = address.rpartition(":")
                found = self.client.nodes_manager.get_node(host=host, port=int(port))
                if found is None:  # Nobody has told of it yet.
                    await self.client.nodes_manager.move_slot(AskError(f"{slot} {address}"))
                    found = self.client.nodes_manager.get_node(host=host, port=int(port))
        if found is None:
            raise StoreUnavailable("a node of the Cluster is not known")
        node = self._nodes.get(found.name)
        if node is None:

            def make() -> Any:
                return found.connection_class(**{**found.connection_kwargs, "retry": never_again()})

            node = self._nodes[found.name] = Node(make, self._clock, self._timeout)
        return found.name, node

    def _look_around(self) -> None:
        """Ask in the background how the Cluster is made up now."""
        if self._loop.time() - self._looked >= _SELDOM:
            self._looked = self._loop.time()
            self._spawn(self._refresh())

    async def _refresh(self) -> None:
        try:
            await self.client.nodes_manager.initialize()
        except (RedisError, OSError, TimeoutError):
            return  # Whoever needs it next looks again.


async def _once(node: Node, requests: Sequence[Request], deadline: float, *, asking: bool) -> Told:
    told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
    node.send(requests, told.set_result, deadline=deadline, asking=asking)
    return await told


def _undone(charge: Charge) -> Charge:
    return charge._replace(cost=-1 if charge.terms.kind == "concurrency" else -charge.cost)


def _refuses(part: Request, answer: Answer) -> bool:
    if part.op == Op.RELEASE:
        return any(told[2] == NEVER for told in answer.numbers)
    return any(
        told[2] > 0 and not charge.terms.shadow for charge, told in zip(part.charges, answer.numbers, strict=True)
    )


def _joined(answers: Sequence[Answer], places: Sequence[Sequence[int]]) -> Answer:
    """Put the answers of the parts in the order of the whole; of several clocks the earliest counts."""
    numbers: list[Triple] = [(0, 0, 0)] * sum(map(len, places))
    for answer, part in zip(answers, places, strict=True):
        for place, told in zip(part, answer.numbers, strict=True):
            numbers[place] = told
    return Answer(numbers, answers[0].now, min(answer.at for answer in answers))
