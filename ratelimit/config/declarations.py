"""What decorators declare on an endpoint."""

from dataclasses import dataclass
from typing import Final

from ratelimit.config.policies import Limit

ATTRIBUTE: Final = "__ratelimit__"
"""The attribute of an endpoint that holds its declaration."""


@dataclass(frozen=True, slots=True)
class EndpointDeclaration:
    """The limits that decorators put on one endpoint, from top to bottom, and whether it is exempt.

    `explicit_names` are the policy names that were chosen by hand; the others come from the function's name and may be
    changed.
    """

    limits: tuple[Limit, ...] = ()
    exempt: bool = False
    explicit_names: frozenset[str] = frozenset()

    def merged(self, other: "EndpointDeclaration") -> "EndpointDeclaration":
        """Return this declaration together with another one that holds for the same endpoint."""
        return EndpointDeclaration(
            (*self.limits, *other.limits), self.exempt or other.exempt, self.explicit_names | other.explicit_names
        )


def declaration_of(endpoint: object) -> EndpointDeclaration:
    """Return what decorators declared on an endpoint, looking through `functools.partial`."""
    while hasattr(endpoint, "func") and not hasattr(endpoint, ATTRIBUTE):
        endpoint = endpoint.func
    found = getattr(endpoint, ATTRIBUTE, None)
    return found if isinstance(found, EndpointDeclaration) else EndpointDeclaration()


def name_of(endpoint: object) -> str:
    """Return the name that the limits of an endpoint have by default: that of its function or class, in ASCII."""
    name = getattr(endpoint, "__name__", type(endpoint).__name__)
    return name.encode("ascii", "backslashreplace").decode()[:100]
