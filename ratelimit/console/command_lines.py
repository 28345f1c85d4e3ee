"""Command lines that do what a form of the console does, to be kept in a runbook."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Final

_FIELDS: Final = {
    "token_hash": "--token-hash",
    "org": "--org",
    "ip": "--ip",
    "plan": "--plan",
    "priority": "--priority",
}


def command_line(
    command: str,
    *,
    policy: str | None = None,
    key: Mapping[str, str] | None = None,
    caller: Mapping[str, str] | None = None,
    plan: str | None = None,
    everybody: bool = False,
    rate: str | int | None = None,
    until: datetime | None = None,
    why: str | None = None,
    by: str | None = None,
) -> str:
    """Return the command with these options, quoted for a POSIX shell; those that are `None` are left out.

    It is empty where the command line cannot name the caller: by the hash of anything but a token.
    """
    parts = ["ratelimit", *command.split()]
    if any(not _can_name(name) for name in caller or ()):
        return ""
    parts += _option("--policy", policy)
    for name, value in (key or {}).items():
        parts += ["--key", f"{name}={value}"]
    for name, value in (caller or {}).items():
        parts += ["--dimension", f"{name.partition('.')[2]}={value}"] if "." in name else [_FIELDS[name], value]
    parts += _option("--plan", plan)
    parts += ["--everybody"] if everybody else []
    parts += _option("--rate", None if rate is None else str(rate))
    parts += _option("--until", None if until is None else until.isoformat(timespec="seconds"))
    parts += _option("--why", why) + _option("--by", by)
    return shlex.join(parts)


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _can_name(field: str) -> bool:
    return field in _FIELDS or ("." in field and not field.endswith("_hash"))
