"""Who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ratelimit.errors import ConfigurationError
from ratelimit.rate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Name the caller that limits are counted for; what is `None` or empty is not known, and limits by it do not apply.

    `token` is the raw credential: it is hashed before it leaves the process and never shown by `repr`. `dimensions`
    holds the values of the settings' own dimensions. `rates` are limits granted to this caller when its token was
    issued, by policy name, as `Rate` or text; they win over everything else. A text that is no rate raises
    `ConfigurationError` here.
    """

    token: str | None = field(default=None, repr=False)
    org: str | None = None
    ip: str | None = None
    plan: str | None = None
    priority: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, Rate | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rates:
            granted = {name: _rate(name, rate) for name, rate in self.rates.items()}
            object.__setattr__(self, "rates", MappingProxyType(granted))

    def granted(self, policy: str) -> Rate | None:
        """Return the rate that was granted to this caller for a policy, if any."""
        rate = self.rates.get(policy)
        return rate if isinstance(rate, Rate) else None


def _rate(name: str, rate: Rate | str) -> Rate:
    try:
        return rate if isinstance(rate, Rate) else Rate.parse(rate)
    except ConfigurationError as error:
        raise ConfigurationError(f"rates.{name}: {error}") from None
