"""Blocks: callers that are refused before anything is charged, in every worker."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, ClassVar, Final

from ratelimit.clock import Clock
from ratelimit.controls.control_entries import ControlEntries
from ratelimit.controls.shared_entries import CONTROL, SharedEntries, check_unicode, checked_ending, ending_of, key_of
from ratelimit.errors import ConfigurationError
from ratelimit.model.block import Block
from ratelimit.model.identity import Identity
from ratelimit.resolver.keys import escape
from ratelimit.resolver.named_policies import HASH_SUFFIX, check_hash
from ratelimit.resolver.resolver import PolicyResolver

_MAX_CACHED_NETWORKS: Final = 4096
_CLIENT_BITS: Final = 64
_MAPPED_BITS: Final = 96
"""Bits before the IPv4 address in an IPv6 address that stands for one."""

_Network = IPv4Network | IPv6Network
_Aspect = tuple[str, int, int]
"""A dimension, and for client addresses the version and the length of the network's prefix."""


class Blocks:
    """Keeps who is blocked: in the store, so that all workers refuse them within 2 seconds.

    A blocked request is answered 403 with the code `blocked`, before anything is charged, and without numbers.
    """

    kind: ClassVar[str] = "block"
    """Begins the names of the entries in the store, behind `CONTROL`."""

    def __init__(self, resolver: PolicyResolver, entries: SharedEntries, clock: Clock) -> None:
        self._resolver, self._clock = resolver, clock
        self._entries = ControlEntries(entries, self.kind, _block, clock, self._apply)
        self._tables: dict[tuple[_Aspect, ...], dict[tuple[str, ...], Block]] = {}

    def __len__(self) -> int:
        return len(self._entries.known)

    @property
    def unreadable(self) -> int:
        """The number of stored entries that cannot be read, and have no effect."""
        return self._entries.unreadable

    async def set(
        self,
        key: Mapping[str, str],
        *,
        until: datetime | None = None,
        why: str | None = None,
        by: str | None = None,
        dry_run: bool = False,
    ) -> None:
        """Block all callers whose identity has these values, until then or until the block is deleted.

        `key` names `token`, `org`, `ip` (an address, or a network as CIDR), `plan` or dimensions of the settings; several
        must all fit. An IPv6 address means its network of 64 bits, by which clients are known. With `dry_run` all is
        checked, and nothing written. A wrong value raises `ConfigurationError`, an unavailable store `StoreError`.
        """
        shown = self._shown_key(key)
        entry = {"key": shown, **checked_ending(until, why, by, self._clock)}
        if not dry_run:
            await self._entries.put(self._entry_name(shown), entry)

    async def list(self) -> list[Block]:
        """Return all blocks that hold, sorted by key; raises `StoreError`."""
        await self._entries.refresh()
        return sorted(self._entries.holding().values(), key=lambda block: sorted(block.key.items()))

    async def delete(self, key: Mapping[str, str], *, why: str | None = None, by: str | None = None) -> bool:
        """Remove an entry and return whether there was one; raises what `set` raises."""
        return await self._entries.delete(self._entry_name(self._shown_key(key)), why, by)

    @property
    def dimensions(self) -> AbstractSet[str]:
        """The dimensions that the blocks name."""
        return {dimension for aspects in self._tables for dimension, _, _ in aspects}

    def find(self, identity: Identity) -> Block | None:
        """Return a block that holds for an identity now, or `None`."""
        for aspects, table in self._tables.items():
            block = table.get(tuple(self._value(identity, aspect) for aspect in aspects))
            if block is not None and not block.is_over(self._clock()):
                return block
        return None

    def _value(self, identity: Identity, aspect: _Aspect) -> str:
        dimension, version, prefix = aspect
        if dimension != "ip" or not version:
            return self._resolver.named.dimension_value(identity, dimension)
        network = None if identity.ip is None else _network(identity.ip)
        if network is None or network.version != version or network.prefixlen < prefix:
            return ""
        return str(network.supernet(new_prefix=prefix))

    def _apply(self) -> None:
        self._tables = {}
        for block in self._entries.known.values():
            aspects = tuple(_aspect(dimension, value) for dimension, value in sorted(block.key.items()))
            values = tuple(_stored_value(dimension, value) for dimension, value in sorted(block.key.items()))
            table = self._tables.setdefault(aspects, {})
            table[values] = _longer(table.get(values), block)

    def _entry_name(self, key: Mapping[str, str]) -> str:
        values = [f"{name}={escape(value)}" for name, value in sorted(key.items())]
        return f"{CONTROL}{self.kind}:{':'.join(values)}"

    def _shown_key(self, key: Mapping[str, str]) -> dict[str, str]:
        known = {"token", "org", "ip", "plan", *self._resolver.settings.dimensions}
        if not isinstance(key, Mapping) or not key:  # type: ignore[redundant-expr]
            raise ConfigurationError("key: say who: {'token': …}, {'org': …}, {'ip': …} [RL306]")
        shown: dict[str, str] = {}
        for name, value in key.items():
            dimension = name.removesuffix(HASH_SUFFIX)
            if dimension not in known or (name != dimension and not self._resolver.named.is_hashed(dimension)):
                raise ConfigurationError(f"key: {name!r} is not one of {', '.join(sorted(known))} [RL306]")
            check_unicode(f"key: {name}", str(value))
            if str(value) == "":
                raise ConfigurationError(f"key: {name}: must be text and not empty [RL306]")
            shown.update([self._shown(name, dimension, str(value))])
        return shown

    def _shown(self, name: str, dimension: str, value: str) -> tuple[str, str]:
        if dimension == "ip" and name == dimension and not self._resolver.named.is_hashed("ip"):
            network = _network(value)
            if network is None:
                raise ConfigurationError(f"key: ip: {value!r:.100} is neither an address nor a network [RL307]")
            return name, str(network)
        if dimension == "ip" and name == dimension:
            value = _single_address(value)
        if name != dimension:
            return name, check_hash(name, value)
        if name == dimension and self._resolver.named.is_hashed(dimension):
            return f"{name}{HASH_SUFFIX}", self._resolver.named.hashed(value)
        return name, value


def _aspect(dimension: str, value: str) -> _Aspect:
    if dimension == "ip" and (network := _known_network(value)) is not None:
        return dimension, network.version, network.prefixlen
    return dimension.removesuffix(HASH_SUFFIX), 0, 0


def _stored_value(dimension: str, value: str) -> str:
    network = _known_network(value) if dimension == "ip" else None
    return escape(value) if network is None else str(network)


@lru_cache(_MAX_CACHED_NETWORKS)
def _network(text: str) -> _Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    if network.version == 6 and (mapped := network.network_address.ipv4_mapped) and network.prefixlen >= _MAPPED_BITS:
        return ip_network(f"{mapped}/{network.prefixlen - _MAPPED_BITS}")
    return network


def _known_network(text: str) -> _Network | None:
    """Return a network as callers in it are known: of IPv6 it has at most 64 bits, which one client controls."""
    network = _network(text)
    is_narrow = network is not None and network.version == 6 and network.prefixlen > _CLIENT_BITS
    return network.supernet(new_prefix=_CLIENT_BITS) if is_narrow and network is not None else network


def _longer(first: Block | None, second: Block) -> Block:
    """Return the block that ends later: several addresses may mean one network."""
    if first is None or second.until is None or (first.until is not None and first.until < second.until):
        return second
    return first


def _single_address(text: str) -> str:
    """Return an address as callers are known by it: where addresses are hashed, a network has no hash of its own."""
    network = _known_network(text)
    if network is None or (network.version == 4 and network.prefixlen < network.max_prefixlen):
        raise ConfigurationError("key: ip: addresses are hashed here, so it must be a single address [RL307]")
    return str(network) if network.version == 6 else str(network.network_address)


def _block(entry: Any) -> Block:
    return Block(key=key_of(entry), **ending_of(entry))
