"""The expiry index: which keys have expired, and which one goes where there are too many."""

from ratelimit.algorithms.quota import NO_EXPIRY
from ratelimit.stores.eviction import KEY_BITS, Evicted, ExpiryIndex

A, B, C, D, E = 1, 2**KEY_BITS - 1, 2**59, 0, 77


class Index:
    """An expiry index, and the keys that its store has."""

    def __init__(self, max_keys: int, spared: frozenset[int] = frozenset()) -> None:
        self.index = ExpiryIndex(max_keys, lambda policy, key: policy == "busy" and key in spared)
        self.keys: set[int] = set()

    def touch(self, key: int, at: int, policy: str = "p") -> Evicted | None:
        evicted = self.index.touch(key, at, policy, is_new=key not in self.keys)
        self.keys.add(key)
        if evicted is not None:
            self.keys.remove(evicted.key)
        return evicted

    def expired(self, now: int) -> list[int]:
        gone = list(self.index.expired(now))
        self.keys -= set(gone)
        return gone

    def discard(self, key: int) -> None:
        self.keys.remove(key)
        self.index.discard(key)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.index), self.index.entries, self.index.next


def test_a_key_expires_by_its_last_use() -> None:
    """A key that is touched again lives on, and is listed once."""
    index = Index(10)
    index.touch(A, 100)
    index.touch(A, 300)
    index.touch(B, 200)
    assert index.sizes == (2, 2, 100)
    assert index.expired(250) == [B]
    assert index.sizes == (1, 1, 300)
    assert index.expired(300) == [A]
    assert index.sizes == (0, 0, NO_EXPIRY)


def test_a_call_forgets_a_few_keys_of_each_policy() -> None:
    """No call scans everything: eight keys of a policy go at a time, and in time all."""
    index = Index(1000)
    for n in range(20):
        index.touch(n, 100, "a")
        index.touch(100 + n, 100, "b")
    assert [len(index.expired(100)) for _ in range(4)] == [16, 16, 8, 0]


def test_the_policy_with_most_keys_loses_the_one_that_expires_first() -> None:
    """Of several that expire at the same time it is the one that was used longest ago."""
    index = Index(4)
    assert index.touch(1000, 1, "quiet") is None
    for key in (A, B, C):
        assert index.touch(key, 100, "busy") is None
    index.touch(A, 100, "busy")
    assert index.touch(D, 100, "busy") == ("busy", B, 100)
    index.touch(C, 200, "busy")
    assert index.touch(E, 100, "busy") == ("busy", A, 100)


def test_keys_that_never_expire_are_evicted_by_their_last_use() -> None:
    """They are a crowd of their own; `discard` forgets one that is empty."""
    index = Index(3)
    for key in (A, B, C, A):
        assert index.touch(key, NO_EXPIRY, "level") is None
    assert index.touch(D, NO_EXPIRY, "level") == ("level", B, NO_EXPIRY)
    index.discard(A)
    assert index.sizes[:2] == (2, 0)


def test_a_key_keeps_the_later_expiry() -> None:
    """After a step of the clock a key is used again with an earlier expiry: it goes at the later one, and once."""
    index = Index(10)
    index.touch(A, 10**9)
    for at in (10**8, 50):
        index.touch(A, at)
    assert index.expired(60) == []
    assert index.expired(10**9) == [A]
    assert index.expired(10**10) == []
    assert index.sizes[:2] == (0, 0)


def test_a_key_that_is_dropped_and_made_again_has_one_entry() -> None:
    """However often; it expires by its last use."""
    index = Index(10)
    for at in range(100, 200):
        index.touch(A, at)
        index.discard(A)
    index.touch(A, 200)
    assert index.sizes[:2] == (1, 1)
    assert index.expired(199) == []
    assert index.expired(200) == [A]
    assert index.sizes[:2] == (0, 0)


def test_keys_that_are_spared_go_last() -> None:
    """One that is used up stays for as long as there are others; it still expires."""
    full = frozenset({A, B, C, D})
    index = Index(3, full)
    index.touch(A, 50, "busy")
    for number in range(10):
        index.touch(100 + number, 100, "busy")
    assert index.sizes[0] == 3
    assert index.touch(B, 200, "busy") == ("busy", 108, 100)
    assert index.touch(C, 200, "busy") == ("busy", 109, 100)
    assert index.touch(D, 200, "busy") == ("busy", A, 50)
    assert index.expired(200) == [B, C, D]
    assert index.sizes[:2] == (0, 0)
