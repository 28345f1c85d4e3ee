"""Blocks: which identities they hold for; `tests/behaviour/test_blocks.py` tests their effect."""

from typing import Any

import pytest

from ratelimit import ConfigurationError, Identity, Limiter, MemoryStore, RateLimitSettings


@pytest.mark.parametrize(
    ("network", "address", "is_blocked"),
    [
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.9/24", "192.0.2.1", True),
        ("0.0.0.0/0", "203.0.113.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8:1::/64", True),
        ("2001:db8::/64", "2001:db8::/64", True),
        ("2001:db8::1", "2001:db8::/64", True),
        ("2001:db8::1", "2001:db8:0:1::/64", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("192.0.2.0/24", "unix", False),
    ],
)
async def test_networks_hold_for_the_addresses_in_them(network: str, address: str, is_blocked: bool) -> None:  # noqa: FBT001
    """An IPv6 client is known by its network of 64 bits, which an address in it means; IPv4 is the same inside IPv6."""
    blocks = Limiter(RateLimitSettings(), MemoryStore()).blocks
    await blocks.set({"ip": network})
    assert (blocks.find(Identity(ip=address)) is not None) is is_blocked
    assert blocks.find(Identity()) is None


async def test_any_of_many_blocks_holds() -> None:
    """Also where they name other dimensions and other lengths of prefixes."""
    blocks = Limiter(RateLimitSettings(), MemoryStore()).blocks
    for number in range(100):
        await blocks.set({"org": f"o{number}"})
        await blocks.set({"ip": f"10.{number}.0.0/16"})
    await blocks.set({"ip": "192.0.2.1", "org": "x"})
    found = [blocks.find(each) for each in (Identity(org="o99"), Identity(ip="10.50.1.1"), Identity(org="x"))]
    assert [None if block is None else dict(block.key) for block in found] == [
        {"org": "o99"},
        {"ip": "10.50.0.0/16"},
        None,
    ]


async def test_hashed_addresses_are_blocked_by_their_hash() -> None:
    """Where the settings hash addresses, no clear one is stored."""
    blocks = Limiter(RateLimitSettings(hashed_dimensions=["ip"]), MemoryStore()).blocks
    await blocks.set({"ip": "192.0.2.1"})
    (block,) = await blocks.list()
    assert list(block.key) == ["ip_hash"]
    assert "192.0.2.1" not in str(block)
    assert blocks.find(Identity(ip="192.0.2.1")) is not None
    assert blocks.find(Identity(ip="192.0.2.2")) is None


@pytest.mark.parametrize("wrong", [{"key": {"org": "\ud800"}}, {"key": {"org": "o"}, "why": "\ud800"}])
async def test_what_nothing_could_write_out_is_refused(wrong: Any) -> None:
    """It would break every later listing."""
    blocks = Limiter(RateLimitSettings(), MemoryStore()).blocks
    with pytest.raises(ConfigurationError, match="is not valid Unicode"):
        await blocks.set(**wrong)
