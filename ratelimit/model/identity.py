"""Identities: who makes a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from uuid import UUID

from ratelimit.errors import ConfigurationError
from ratelimit.model.rate import Rate

_PLAIN: Final = frozenset({str, type(None)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The caller that limits are counted for. A field that is `None` or empty is unknown: limits by it do not apply.

    `token` is the raw credential; it is hashed before it leaves the process, and `repr` never shows it. `dimensions`
    holds the values of the settings' own dimensions. `rates` are limits that were granted to this caller when its token
    was issued, by policy name: a `Rate` or its text, or a number for quotas and concurrency (for a limit: per the
    policy's own period). They win over everything else. `priority` selects the policies' `shares`. Integers and UUIDs
    are taken as their text; any other value, and a text that is not a rate, raises `ConfigurationError` here.
    """

    token: str | None = field(default=None, repr=False)
    org: str | None = None
    ip: str | None = None
    plan: str | None = None
    priority: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict, hash=False)
    rates: Mapping[str, Rate | str | int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # One is made for each request, so the usual case is recognized by one comparison.
        if not {type(self.token), type(self.org), type(self.ip), type(self.plan), type(self.priority)} <= _PLAIN:
            self._convert_to_text()
        if type(self.dimensions) is not dict or type(self.rates) is not dict:
            self._check_mappings()
        if self.dimensions:
            named = {name: _text(f"dimensions.{name}", value) for name, value in self.dimensions.items()}
            object.__setattr__(self, "dimensions", MappingProxyType(named))
        if self.rates:
            granted = {name: _rate(name, rate) for name, rate in self.rates.items()}
            object.__setattr__(self, "rates", MappingProxyType(granted))

    def _convert_to_text(self) -> None:
        for name in ("token", "org", "ip", "plan", "priority"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _text(name, value))

    def _check_mappings(self) -> None:
        for name in ("dimensions", "rates"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigurationError(f"{name}: must be a mapping, got {type(getattr(self, name)).__name__}")

    def granted(self, policy: str) -> Rate | int | None:
        """Return the rate or number that was granted to this caller for a policy, or `None`."""
        rate = self.rates.get(policy)
        return None if isinstance(rate, str) else rate


def _text(name: str, value: object) -> str:
    """Return an id as text; database ids may be integers or UUIDs."""
    if isinstance(value, (str, int, UUID)) and not isinstance(value, bool):
        return str(value)
    raise ConfigurationError(f"{name}: must be text, got {type(value).__name__}")


def _rate(name: str, rate: Rate | str | int) -> Rate | int:
    if isinstance(rate, bool) or not isinstance(rate, (Rate, str, int)):
        raise ConfigurationError(
            f"rates.{name}: {rate!r:.50} is not a rate: write it like '600/minute', or a whole number"
        )
    try:
        if isinstance(rate, int):
            return Rate(rate, 1).limit  # Within the same bounds.
        return rate if isinstance(rate, Rate) else Rate.parse(rate)
    except ConfigurationError as error:
        raise ConfigurationError(f"rates.{name}: {error}") from None
