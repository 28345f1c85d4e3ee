"""The servers of a deployment, each with a proxy in front of it and an address of its own."""

import asyncio
import random
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trustme

from benchmarks.faults.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.tls_proxy import TlsProxy

DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no")
"""Options of a server that writes every command to disk."""

AT_ONCE: Final = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
"""Options of a server whose replicas begin to copy it at once."""


@dataclass(frozen=True)
class Node:
    """A server, the folder of its data, the proxy through which all others reach it, and the address it connects from.

    `bus` is the proxy in front of its Cluster bus, and `tls` what terminates TLS for it, where there are such.
    """

    server: RedisServer
    folder: Path
    proxy: Proxy
    address: str
    bus: Proxy | None = None
    tls: TlsProxy | None = None

    @property
    def in_front(self) -> "list[Proxy | TlsProxy]":
        """All that listens for the server."""
        return [each for each in (self.proxy, self.bus, self.tls) if each is not None]

    def set_clock(self, seconds: int) -> None:
        """Shift the server's wall clock, where it has the library of `clock_library`."""
        with (self.folder / "shift").open("r+b") as file:  # The file stays the one that the server has mapped.
            file.write(struct.pack("q", seconds))

    def lose_data(self) -> None:
        """Delete what the stopped server would load when it starts."""
        for pattern in ("*.aof", "*.rdb"):
            for file in self.folder.glob(pattern):
                file.unlink()


@dataclass
class Nodes:
    """Makes the servers of a deployment; a server connects from an address of its own, so that proxies know it from clients.

    `clock` is the library of `clock_library`, for servers whose clocks can be shifted; `authority` signs the certificates
    of servers that accept TLS too, and `has_buses` gives each node a proxy in front of its Cluster bus.
    """

    is_cluster: bool = False
    has_buses: bool = False
    clock: Path | None = None
    authority: trustme.CA | None = None
    made: list[Node] = field(default_factory=list)

    def make(self, folder: Path, *options: str, port: int = 0) -> RedisServer:
        """Make a server, and the proxies that listen for it from `start_proxies` on; its port is not the given one.

        An outgoing connection takes the port of a killed server, unless that is below the system's range for these.
        """
        port, announced = low_port(), low_port()
        bus = low_port() if self.has_buses else port + 10_000
        address = f"127.0.0.{len(self.made) + 2}"
        server = RedisServer(
            folder,
            *("--bind", address, "127.0.0.1", *DURABLE, *AT_ONCE, *options),
            *(_announced_in_cluster(announced, bus) if self.is_cluster else _announced(announced)),
            port=port,
            announced=announced,
            bus=bus,
            environment=self._environment(folder),
        )
        tls = TlsProxy(folder, port, self.authority, ["127.0.0.1"]) if self.authority else None
        proxy = Proxy(port, listening_at=announced, tls=tls.port if tls else 0)
        before_bus = Proxy(port + 10_000, listening_at=bus) if self.has_buses else None
        self.made.append(Node(server, folder, proxy, address, before_bus, tls))
        return server

    async def start_proxies(self) -> None:
        """Let all proxies listen."""
        for node in self.made:
            for each in node.in_front:
                await each.start()

    async def stop_proxies(self) -> None:
        """Stop all proxies."""
        for node in self.made:
            for each in node.in_front:
                await each.stop()

    def node_of(self, server: RedisServer) -> Node:
        """Return the node of a server."""
        return next(each for each in self.made if each.server is server)

    def _environment(self, folder: Path) -> dict[str, str]:
        if self.clock is None:
            return {}
        (folder / "shift").write_bytes(struct.pack("q", 0))
        return {"LD_PRELOAD": str(self.clock), "SHIFT_FILE": str(folder / "shift")}


def low_port() -> int:
    """Return a free port that no outgoing connection takes, and to which 10,000 may be added."""
    while True:
        port = random.randrange(12_000, 22_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


async def clock_library(folder: Path) -> Path:
    """Compile the library that shifts a server's wall clock; this needs a C compiler."""
    library = folder / "shifted_clock.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).parent / "shifted_clock.c")]
    await asyncio.to_thread(subprocess.run, command, check=True)
    return library


def _announced(port: int) -> tuple[str, ...]:
    return ("--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(port))


def _announced_in_cluster(port: int, bus: int) -> tuple[str, ...]:
    at = ("--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(port))
    return (*at, "--cluster-announce-bus-port", str(bus), "--cluster-require-full-coverage", "no")
