"""One visit of the console: the request, who makes it, and what its pages need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from ratelimit.enforcement.statistics import Statistics
from ratelimit.limiter import Limiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request of an operator who may see the console. `base` is the path at which it is mounted, without a slash at the end.

    `operator` is the name that `authorize` returned, `may_change` whether the operator may change limits, `csrf` the token that
    its forms carry.
    """

    request: Request
    limiter: Limiter
    operator: str | None
    may_change: bool
    csrf: str

    @property
    def base(self) -> str:
        """The path at which the console is mounted."""
        return base_of(self.request)

    @property
    def statistics(self) -> Statistics | None:
        """The statistics of the limiter, where the settings want them."""
        return self.limiter.statistics

    def url(self, page: str = "", query: Mapping[str, Any] | None = None) -> str:
        """Return the address of a page of the console, within this origin."""
        found = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        return f"{self.base}/{page}{'?' if found else ''}{urlencode(found)}"

    @property
    def now(self) -> float:
        """Epoch seconds, by the limiter's clock."""
        return self.limiter.clock() / 1e6


def base_of(request: Request) -> str:
    """Return the path at which a mounted app is, without a slash at the end."""
    return str(request.scope.get("root_path", "")).rstrip("/")
