"""A real master, its replica and three Sentinels on this machine."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.redis_server import RedisServer
from tests.support.server_binary import binary
from tests.support.waiting import until

NAME = "mymaster"

_SETTLED = 2500
"""Milliseconds without a change after which a failover is over for every Sentinel."""


class Watcher(RedisServer):
    """One Sentinel; it writes into its own configuration file, and connects from the first address of `bind`."""

    def __init__(self, folder: Path, watched: int, down_after: int = 300, bind: str = "127.0.0.1") -> None:
        super().__init__(folder)
        conf = folder / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind {bind}\ndir {folder}\nloglevel warning\n"
            f"sentinel monitor {NAME} 127.0.0.1 {watched} 2\n"
            f"sentinel down-after-milliseconds {NAME} {down_after}\n"
            f"sentinel failover-timeout {NAME} 2000\n"
        )
        self._command = [binary(), str(conf), "--sentinel"]

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    def clients(self) -> Any:
        with self.client() as client:
            return client.client_list()


class WatchedMaster:
    """Two servers, of which one is the master, and three Sentinels that watch it.

    `make` makes a server, `watch` a Sentinel of a folder and the master's port.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[..., RedisServer] = RedisServer,
        watch: Callable[[Path, int], Watcher] = Watcher,
    ) -> None:
        at_once = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        one = make(_made(folder / "one"), *at_once)
        two = make(_made(folder / "two"), *at_once, "--replicaof", "127.0.0.1", str(one.announced))
        self.servers = [one, two]
        self.watchers = [watch(_made(folder / f"sentinel{number}"), one.announced) for number in range(3)]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.watchers)}/{NAME}"

    def start(self) -> None:
        try:
            for server in self.servers:
                server.start()
            until(lambda: self.info(self.servers[1])["master_link_status"] == "up", "the replica did not come up")
            for watcher in self.watchers:
                watcher.start()
            until(self.is_well, "the Sentinels did not come up")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for server in (*self.watchers, *self.servers):
            server.stop()

    def info(self, server: RedisServer) -> Any:
        with server.client() as client:
            return client.info("replication")

    def master(self) -> RedisServer:
        """Return the master that the first Sentinel names."""
        port = int(self.watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
        return next(each for each in self.servers if each.announced == port)

    def replica(self) -> RedisServer:
        master = self.master()
        return next(each for each in self.servers if each is not master)

    def agreed(self) -> bool:
        """Return whether all Sentinels have agreed for some seconds.

        A server that is restarted before that may be promoted by a Sentinel that does not know yet that the failover is
        over, and then there are two masters.
        """
        states = [self._state(watcher) for watcher in self.watchers]
        views = {(state["port"], state["config-epoch"]) for state in states}
        settled = all(int(state["role-reported-time"]) >= _SETTLED for state in states)
        return len(views) == 1 and {state["flags"] for state in states} == {"master"} and settled

    def is_well(self) -> bool:
        """Return whether all Sentinels know each other, one master and a replica that follows it and may be promoted."""
        known = {(state["num-slaves"], state["num-other-sentinels"]) for state in map(self._state, self.watchers)}
        if known != {("1", "2")} or not self.agreed() or not all(map(self._reaches_replica, self.watchers)):
            return False
        info = self.info(self.replica())
        to = info.get("master_port"), info.get("master_link_status")
        return info["role"] == "slave" and to == (self.master().announced, "up")

    def _state(self, watcher: Watcher) -> dict[str, str]:
        return _texts(_pairs(watcher.ask("SENTINEL", "MASTERS")))

    def _reaches_replica(self, watcher: Watcher) -> bool:
        """Return whether a Sentinel has read the replica's state; else it promotes none (NOGOODSLAVE)."""
        state = _texts(_pairs(watcher.ask("SENTINEL", "REPLICAS", NAME)))
        return (state["flags"], state["master-link-down-time"], state["role-reported"]) == ("slave", "0", "slave")

    def follows(self, offset: int) -> bool:
        """Return whether the replica has read up to `offset`."""
        return int(self.info(self.replica())["slave_repl_offset"]) >= offset


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _texts(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value).lower()


def _pairs(reply: Any) -> Any:
    """Read a reply to `SENTINEL MASTERS` or `REPLICAS` with one server; its form depends on the version of redis-py."""
    if isinstance(reply, dict):
        return reply[NAME].items()
    (flat,) = reply
    return flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
