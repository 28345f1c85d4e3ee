"""Callers of a log: which fields name the token, the organization, the address and the plan of a request."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from ratelimit.asgi.identify import parse_address
from ratelimit.errors import ConfigurationError
from ratelimit.model.identity import Identity
from ratelimit.rehearsal.log_records import LogRecord

Identify = Callable[[LogRecord], Identity | None]
"""Tells who has made the request of a record."""

ADDRESS: Final = "remote_addr"
_SCHEMES: Final = ("bearer ", "token ", "basic ")
_NAMELESS: Final = "unknown"
_UNKNOWN: Final = Identity()
_CLIENT_BITS: Final = 64
_MAX_CACHED: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerFields:
    """The fields that name a caller: `None` for what the log does not have. `dimensions` maps names to fields."""

    token: str | None = None
    org: str | None = None
    ip: str | None = ADDRESS
    plan: str | None = None
    priority: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)


class LogCallers:
    """Makes identities of records; `owners` maps a token to its organization and plan, as a CSV file lists them; `identify` is asked instead, where there is one.

    A caller is called as the log names it: by its token, else its organization, else its address.
    """

    def __init__(
        self,
        fields: CallerFields,
        owners: Mapping[str, tuple[str | None, str | None]] | None = None,
        identify: Identify | None = None,
    ) -> None:
        self._fields, self._owners, self._identify = fields, owners or {}, identify
        self._cache: dict[tuple[str | None, ...], tuple[Identity, str]] = {}
        own = (fields.token, fields.org, fields.ip, fields.plan, fields.priority)
        self._names = [name or "" for name in (*own, *fields.dimensions.values())]

    def find(self, record: LogRecord) -> tuple[Identity, str]:
        """Return the identity of a request, and the caller's name."""
        if self._identify is not None:
            own = self._identify(record) or _UNKNOWN
            return own, shown(own.token or own.org or own.ip or _NAMELESS)
        fields = record.fields
        key = tuple([fields.get(name) for name in self._names])
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            found = self._cache[key] = self._make(key)
        return found

    def _make(self, values: tuple[str | None, ...]) -> tuple[Identity, str]:
        token, org, ip, plan, priority, *more = values
        token = _without_scheme(token)
        if token is not None and token in self._owners:
            owner, owned_plan = self._owners[token]
            org, plan = org or owner, plan or owned_plan
        ip = _address(ip)
        dimensions = {name: value for name, value in zip(self._fields.dimensions, more, strict=True) if value}
        identity = Identity(token=token, org=org, ip=ip, plan=plan, priority=priority, dimensions=dimensions)
        return identity, shown(token or org or ip or _NAMELESS)


def read_owners(path: str) -> dict[str, tuple[str | None, str | None]]:
    """Read a CSV file with the columns `token`, `org` and, if there is one, `plan`; raises `ConfigurationError`."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file)
            if "token" not in (rows.fieldnames or ()):
                raise ConfigurationError(
                    f"--org-map: {path}: needs the columns token, org and, if there is one, plan [RL853]"
                )
            return {row["token"]: (row.get("org") or None, row.get("plan") or None) for row in rows}
    except OSError as error:
        raise ConfigurationError(f"--org-map: {path}: {error.strerror} [RL853]") from None


def _without_scheme(value: str | None) -> str | None:
    if value is None:
        return None
    lower = value.lower()
    return next((value[len(scheme) :] for scheme in _SCHEMES if lower.startswith(scheme)), value) or None


def _address(value: str | None) -> str | None:
    """Return an address as the server knows clients by it: without a port, and of IPv6 the network of 64 bits."""
    address = None if value is None else parse_address(value)
    if address is None:
        return value
    return str(address) if address.version == 4 else str(ip_network((int(address), _CLIENT_BITS), strict=False))


def shown(name: str) -> str:
    """Return a name that reports and terminals can show: what is not printable is escaped."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()
