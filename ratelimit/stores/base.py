"""What every store is."""

from collections.abc import Sequence
from typing import Protocol

from ratelimit.decision import Charge, ServiceLimit


class Store(Protocol):
    """Keeps counters and decides charges in one atomic step.

    `charge` makes all enforcing charges of one request or none of them, and answers one service limit for each, in
    their order. With `peek` it makes none. A shadow charge is made where the request is admitted and it has room
    itself. It raises `StoreError` when the store does not do its work, and never anything of the store's own library.
    `aclose` gives back what the store holds open; it may be called twice.
    """

    async def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> Sequence[ServiceLimit]:
        """Decide the charges of one request."""

    async def aclose(self) -> None:
        """Give back connections; a store is not used afterwards."""
