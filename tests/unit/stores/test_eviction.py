"""The expiry index: which keys have expired, and which one goes where there are too many."""

from ratelimit.algorithms.quota import NO_EXPIRY
from ratelimit.stores.eviction import ExpiryIndex


def test_a_key_expires_by_its_last_use() -> None:
    """A key that is touched again lives on, and is listed once."""
    index = ExpiryIndex(10)
    index.touch("a", 100, "p")
    index.touch("a", 300, "p")
    index.touch("b", 200, "p")
    assert (len(index), index.entries, index.next) == (2, 2, 100)
    assert list(index.expired(250)) == ["b"]
    assert (len(index), index.entries, index.next) == (1, 1, 300)
    assert list(index.expired(300)) == ["a"]
    assert (len(index), index.entries, index.next) == (0, 0, NO_EXPIRY)


def test_a_call_forgets_a_few_keys_of_each_policy() -> None:
    """No call scans everything: eight keys of a policy go at a time, and in time all."""
    index = ExpiryIndex(1000)
    for n in range(20):
        index.touch(f"a{n}", 100, "a")
        index.touch(f"b{n}", 100, "b")
    assert [len(list(index.expired(100))) for _ in range(4)] == [16, 16, 8, 0]


def test_the_policy_with_most_keys_loses_the_one_that_expires_first() -> None:
    """Of several that expire at the same time it is the one that was used longest ago."""
    index = ExpiryIndex(4)
    assert index.touch("single", 1, "quiet") is None
    for key in ("a", "b", "c"):
        assert index.touch(key, 100, "busy") is None
    index.touch("a", 100, "busy")
    assert index.touch("d", 100, "busy") == ("busy", "b", 100)
    index.touch("c", 200, "busy")
    assert index.touch("e", 100, "busy") == ("busy", "a", 100)


def test_keys_that_never_expire_are_evicted_by_their_last_use() -> None:
    """They are a crowd of their own; `discard` forgets one that is empty."""
    index = ExpiryIndex(3)
    for key in ("a", "b", "c", "a"):
        assert index.touch(key, NO_EXPIRY, "level") is None
    assert index.touch("d", NO_EXPIRY, "level") == ("level", "b", NO_EXPIRY)
    index.discard("a")
    index.discard("unknown")
    assert (len(index), index.entries) == (2, 0)


def test_a_key_may_expire_earlier_than_before() -> None:
    """After a step of the clock a key is used again with an earlier expiry: it goes then, and once."""
    index = ExpiryIndex(10)
    index.touch("a", 10**9, "p")
    index.touch("a", 50, "p")
    assert index.next == 50
    assert list(index.expired(60)) == ["a"]
    assert len(index) == 0
    assert list(index.expired(10**10)) == []
    assert index.entries == 0


def test_keys_that_are_spared_go_last() -> None:
    """One that is used up stays for as long as there are others; it still expires."""
    index = ExpiryIndex(3, lambda policy, key: policy == "busy" and key.startswith("full"))
    index.touch("full", 50, "busy")
    for number in range(10):
        index.touch(f"k{number}", 100, "busy")
    assert len(index) == 3
    assert index.touch("full2", 200, "busy") == ("busy", "k8", 100)
    assert index.touch("full3", 200, "busy") == ("busy", "k9", 100)
    assert index.touch("full4", 200, "busy") == ("busy", "full", 50)
    assert list(index.expired(200)) == ["full2", "full3", "full4"]
    assert (len(index), index.entries) == (0, 0)
