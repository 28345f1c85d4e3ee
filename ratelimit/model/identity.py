"""Identities: who makes a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from ratelimit.errors import ConfigurationError
from ratelimit.model.rate import Rate

_PLAIN: Final = frozenset({str, type(None)})
_MAPPINGS: Final = ("dimensions", "rates")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class HashedValue(str):
    """The hash of a token, or of another hashed value, where the value itself is not known: keys hold it as it is.

    Operators name a caller by it: `Identity(token=HashedValue("1a2b…"))` has the counters of the token with that hash.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
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

    def __init__(
        self,
        *,
        token: str | None = None,
        org: str | None = None,
        ip: str | None = None,
        plan: str | None = None,
        priority: str | None = None,
        dimensions: Mapping[str, str] = _NOTHING,
        rates: Mapping[str, Rate | str | int] = _NOTHING,
    ) -> None:
        # One is made for each request, so the usual case is recognized by one comparison, and fields are set directly.
        if not {type(token), type(org), type(ip), type(plan), type(priority)} <= _PLAIN:
            token, org, ip = _optional("token", token), _optional("org", org), _optional("ip", ip)
            plan, priority = _optional("plan", plan), _optional("priority", priority)
        if dimensions is _NOTHING:
            dimensions = {}
        else:
            named = _mapping("dimensions", dimensions).items()
            dimensions = _read_only({name: _text(f"dimensions.{name}", value) for name, value in named})
        if rates is _NOTHING:
            rates = {}
        else:
            granted = _mapping("rates", rates).items()
            rates = _read_only({name: _rate(name, rate) for name, rate in granted})
        _set_token(self, token)
        _set_org(self, org)
        _set_ip(self, ip)
        _set_plan(self, plan)
        _set_priority(self, priority)
        _set_dimensions(self, dimensions)
        _set_rates(self, rates)

    def __post_init__(self) -> None:
        """Check and convert the fields of a dataclass that is derived from this one."""
        Identity.__init__(
            self,
            token=self.token,
            org=self.org,
            ip=self.ip,
            plan=self.plan,
            priority=self.priority,
            dimensions=self.dimensions,
            rates=self.rates,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the fields: a read-only mapping cannot be pickled itself."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {name: dict(values[name]) for name in _MAPPINGS}
        return _remade, (type(self), {**getattr(self, "__dict__", {}), **values, **plain})

    def granted(self, policy: str) -> Rate | int | None:
        """Return the rate or number that was granted to this caller for a policy, or `None`."""
        rate = self.rates.get(policy)
        return None if isinstance(rate, str) else rate


_set_token, _set_org, _set_ip = (Identity.__dict__[name].__set__ for name in ("token", "org", "ip"))
_set_plan, _set_priority = (Identity.__dict__[name].__set__ for name in ("plan", "priority"))
_set_dimensions, _set_rates = (Identity.__dict__[name].__set__ for name in ("dimensions", "rates"))


def _remade(kind: type[Identity], values: Mapping[str, Any]) -> Identity:
    made = object.__new__(kind)
    for name, value in values.items():
        is_read_only = name in _MAPPINGS and value
        object.__setattr__(made, name, MappingProxyType(value) if is_read_only else value)
    return made


def _read_only(values: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(values) if values else {}


def _optional(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _mapping(name: str, value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name}: must be a mapping, got {type(value).__name__} [RL302]")
    return value


def _text(name: str, value: object) -> str:
    """Return an id as text; database ids may be integers or UUIDs."""
    if isinstance(value, (str, int, UUID)) and not isinstance(value, bool):
        return value if isinstance(value, HashedValue) else str(value)
    raise ConfigurationError(f"{name}: must be text, got {type(value).__name__} [RL302]")


def _rate(name: str, rate: Rate | str | int) -> Rate | int:
    if isinstance(rate, bool) or not isinstance(rate, (Rate, str, int)):
        raise ConfigurationError(
            f"rates.{name}: {rate!r:.50} is not a rate: write it like '600/minute', or a whole number [RL106]"
        )
    try:
        if isinstance(rate, int):
            return Rate(rate, 1).limit  # Within the same bounds.
        return rate if isinstance(rate, Rate) else Rate.parse(rate)
    except ConfigurationError as error:
        raise ConfigurationError(f"rates.{name}: {error}") from None
