"""Worker registry: how many workers share the limits, so that each knows its share while the store is unavailable."""

import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from ratelimit.stores.base import Store

CONFIG_SUFFIX: Final = ":settings"
"""Ends the name of the registry that holds `<worker>@<hash of its settings>`."""

WORKER_TTL: Final = 5.0
"""Seconds for which a worker stays registered after a heartbeat, of which it sends one a second."""

_CLOCK_MS: Final = 1000
"""Milliseconds by which the clocks of a worker and of the store may differ."""


class WorkerRegistry:
    """Registers this worker in the store by heartbeats, and counts the workers that are registered.

    `is_unavailable` says whether the store is unavailable to this worker. `config` returns what stands for its settings, so that
    a fleet with different settings is seen.
    """

    def __init__(
        self,
        store: Store,
        key_prefix: str,
        *,
        is_unavailable: Callable[[], bool] = lambda: False,
        config: Callable[[], str] | None = None,
    ) -> None:
        self._store, self._is_unavailable = store, is_unavailable
        self.config = config
        self._registry = f"{key_prefix}:{{workers}}"
        self._name = secrets.token_hex(6)
        self._told = ""
        self.is_onlooker = False
        """Whether this process serves no requests, and is no worker: a command line."""
        self.count = 1
        """The number of workers, this one included."""

    async def heartbeat(self, seconds: float = WORKER_TTL) -> None:
        """Register this worker for `seconds`, and count the workers; raises `StoreError`."""
        if self.is_onlooker:
            return
        # The process id tells workers apart that were forked after this was made.
        worker = f"{self._name}-{os.getpid()}"
        registered = await self._store.heartbeat(self._registry, worker, seconds)
        if self.config is not None:
            await self._tell_config(f"{worker}@{self.config()}", seconds)
        # A worker that has not reconnected yet is missing in the registry, and still serves its share.
        self.count = max(1, registered, self.count if self._is_unavailable() else 0)

    async def settings_hashes(self, now: int) -> Mapping[str, int]:
        """Return how many workers have which settings at `now` (epoch µs), by their hashes; raises `StoreError`.

        Two hashes mean that a deployment is half done. Where the store is not shared, it is this worker alone.
        """
        (registered,) = await self._store.read_ranks([f"{self._registry}{CONFIG_SUFFIX}"])
        alive = [name for name, until_ms in registered.items() if until_ms > now // 1000 - _CLOCK_MS]
        if not alive and self.config is not None:
            return {self.config(): 1}
        return Counter(name.partition("@")[2] for name in alive)

    async def _tell_config(self, name: str, seconds: float) -> None:
        registry = f"{self._registry}{CONFIG_SUFFIX}"
        own = name.partition("@")[0]
        if self._told != name and self._told.startswith(f"{own}@"):  # A reload came between.
            await self._store.heartbeat(registry, self._told, 0.0)
        self._told = name
        await self._store.heartbeat(registry, name, seconds)

    async def sign_off(self) -> None:
        """Remove this worker from the registry; raises `StoreError`."""
        if self.count > 1:
            await self.heartbeat(0.0)
