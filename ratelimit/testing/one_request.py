"""Single requests to a store, for tests of stores."""

from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import Reading, ServiceLimit
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest


async def submit(
    store: Store, charge: Charge, operation: Operation, holder: int = 0, charged_at: int = 0
) -> StoreReply:
    """Do one operation with one charge."""
    return await store.submit(StoreRequest([charge], operation, holder, charged_at))


async def read(store: Store, charge: Charge, operation: Operation = Operation.CHARGE, holder: int = 0) -> Reading:
    """Return the reading of one charge."""
    return (await submit(store, charge, operation, holder)).readings[0]


async def charge_all(store: Store, *charges: Charge, peek: bool = False) -> list[ServiceLimit]:
    """Charge all or none, and return their limits."""
    return list(await store.charge(charges, peek=peek))


async def charge_one(store: Store, charge: Charge, *, peek: bool = False) -> ServiceLimit:
    """Charge one, and return its limit."""
    (limit,) = await store.charge([charge], peek=peek)
    return limit


async def used_units(store: Store, charge: Charge) -> int:
    """Return the units that are counted under the key of a charge."""
    used, _, _ = await read(store, charge, Operation.USAGE)
    return used
