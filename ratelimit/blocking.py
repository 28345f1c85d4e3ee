"""The limiter for code without an event loop: threads, Celery, Flask, Django, scripts."""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ratelimit._utils.background_loop import run_blocking
from ratelimit.clock import Clock
from ratelimit.config.settings import RateLimitSettings
from ratelimit.controls.blocks import Blocks
from ratelimit.controls.fleet_switches import FleetSwitches
from ratelimit.controls.overrides import Overrides
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.listeners import Listener
from ratelimit.limiter import Limiter
from ratelimit.model.block import Block
from ratelimit.model.fleet_switch import FleetSwitch
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.stores.base import Store

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Limiter, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["BlockingLimiter", P], R]:
    """Return a method that runs one of `Limiter`'s in the background loop, and waits for its result."""

    @wraps(method)
    def call(self: "BlockingLimiter", /, *args: P.args, **options: P.kwargs) -> R:
        return run_blocking(method(self.limiter, *args, **options))

    return call


class BlockingOverrides:
    """Does as `Overrides`, without `await`."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides

    def set(self, **options: Any) -> None:
        """Do as `Overrides.set`."""
        run_blocking(self._overrides.set(**options))

    def delete(self, **options: Any) -> bool:
        """Do as `Overrides.delete`."""
        return run_blocking(self._overrides.delete(**options))

    def list(self) -> Sequence[Override]:
        """Do as `Overrides.list`."""
        return run_blocking(self._overrides.list())


class BlockingBlocks:
    """Does as `Blocks`, without `await`."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def set(self, key: Mapping[str, str], **options: Any) -> None:
        """Do as `Blocks.set`."""
        run_blocking(self._blocks.set(key, **options))

    def delete(self, key: Mapping[str, str], **options: Any) -> bool:
        """Do as `Blocks.delete`."""
        return run_blocking(self._blocks.delete(key, **options))

    def list(self) -> Sequence[Block]:
        """Do as `Blocks.list`."""
        return run_blocking(self._blocks.list())


class BlockingFleet:
    """Does as `FleetSwitches`, without `await`."""

    def __init__(self, fleet: FleetSwitches) -> None:
        self._fleet = fleet

    def shadow(self, **options: Any) -> None:
        """Do as `FleetSwitches.shadow`."""
        run_blocking(self._fleet.shadow(**options))

    def pause(self, **options: Any) -> None:
        """Do as `FleetSwitches.pause`."""
        run_blocking(self._fleet.pause(**options))

    def off(self, **options: Any) -> bool:
        """Do as `FleetSwitches.off`."""
        return run_blocking(self._fleet.off(**options))

    def list(self) -> Sequence[FleetSwitch]:
        """Do as `FleetSwitches.list`."""
        return run_blocking(self._fleet.list())


class BlockingLimiter:
    """Do as `Limiter`, without `await`: each method waits for its result, and `slot` is for a `with` block.

    May be used by any number of threads. All blocking limiters of a process share one event loop in a thread of its own;
    a forked child starts another one. Parameters, results and errors are those of `Limiter`; in a thread whose event loop
    runs, a call raises `ConfigurationError`, since it would block that loop. `limiter` is the limiter itself, for `await`;
    `run` runs any coroutine where its connections live.
    """

    def __init__(
        self,
        settings: RateLimitSettings,
        store: Store | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.limiter = Limiter(settings, store, clock, listeners)

    check = _blocking(Limiter.check)
    peek = _blocking(Limiter.peek)
    limits = _blocking(Limiter.limits)
    look = _blocking(Limiter.look)
    consume = _blocking(Limiter.consume)
    release = _blocking(Limiter.release)
    finish = _blocking(Limiter.finish)
    usage = _blocking(Limiter.usage)
    reset = _blocking(Limiter.reset)
    block = _blocking(Limiter.block)
    health = _blocking(Limiter.health)
    start = _blocking(Limiter.start)
    close = _blocking(Limiter.aclose)

    @property
    def blocks(self) -> "BlockingBlocks":
        """The blocks, as `Limiter.blocks`."""
        return BlockingBlocks(self.limiter.blocks)

    @property
    def allowed(self) -> "BlockingBlocks":
        """The callers that are not limited, as `Limiter.allowed`."""
        return BlockingBlocks(self.limiter.allowed)

    @property
    def fleet(self) -> "BlockingFleet":
        """The fleet switches, as `Limiter.fleet`."""
        return BlockingFleet(self.limiter.fleet)

    @property
    def overrides(self) -> "BlockingOverrides":
        """The overrides, as `Limiter.overrides`."""
        return BlockingOverrides(self.limiter.overrides)

    def settle(self, decision: Decision, costs: Mapping[str, int]) -> None:
        """Change what a decision charged to the actual cost, as `Decision.settle`."""
        run_blocking(decision.settle(costs))

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine where this limiter's connections live, and return its result."""
        return run_blocking(work)

    @contextmanager
    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> Iterator[Decision]:
        """Hold a permit of one `Concurrency` for a `with` block, renewed until the block ends, as `Limiter.slot`."""
        held = self.limiter.slot(policy, identity, method=method, endpoint=endpoint)
        decision = run_blocking(held.__aenter__())
        try:
            yield decision
        finally:
            run_blocking(held.__aexit__(None, None, None))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
