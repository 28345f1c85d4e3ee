"""Caches with a bound: they never grow beyond it, and drop what their class says."""

import copy
import pickle

from ratelimit._utils.bounded_cache import BoundedCache, LruCache


def test_an_entry_that_is_put_counts_as_used() -> None:
    """The one that was used longest ago is dropped."""
    cache: LruCache[str, int] = LruCache(2)
    for key in ("a", "b", "a", "c"):
        cache.put(key, 1)
    assert list(cache) == ["a", "c"]


def test_an_insert_beyond_the_bound_drops_all_others() -> None:
    """A full cache starts again with the new entry; a new value for a known key drops nothing."""
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache["a"], cache["b"], cache["a"] = 1, 2, 3
    assert cache == {"a": 3, "b": 2}
    cache["c"] = 4
    assert cache == {"c": 4}


def test_a_bound_of_zero_stores_nothing() -> None:
    """The bound may change at any time, and 0 turns the cache off."""
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache["a"] = 1
    cache.max_size = 0
    cache["b"] = 2
    assert cache == {}
    cache.max_size = 1
    cache["b"] = 2
    assert cache == {"b": 2}


def test_a_merge_exceeds_the_bound_by_its_own_entries_at_most() -> None:
    """The bound is checked once, before the entries are inserted."""
    cache: BoundedCache[int, int] = BoundedCache(2)
    cache.merge({1: 1, 2: 2, 3: 3})
    assert len(cache) == 3
    cache.merge({4: 4})
    assert cache == {4: 4}


def test_the_generation_counts_what_was_cleared() -> None:
    """`clear` counts, so that code can see that a value was computed before it; an eviction does not count."""
    cache: BoundedCache[int, int] = BoundedCache(1)
    cache[1], cache[2] = 1, 2
    assert cache.generation == 0
    cache.clear()
    assert (cache, cache.generation) == ({}, 1)


def test_the_entry_used_longest_ago_is_dropped_first() -> None:
    """Every use of `get_or_make` counts, and an entry is made only where there is none."""
    cache: LruCache[str, list[int]] = LruCache(2)
    first = cache.get_or_make("a", lambda: [1])
    cache.get_or_make("b", lambda: [2])
    assert cache.get_or_make("a", lambda: [9]) is first
    cache.get_or_make("c", lambda: [3])
    assert dict(cache) == {"a": [1], "c": [3]}


def test_a_copy_and_a_pickle_are_empty() -> None:
    """What holds a cache can be sent to another process; the cache begins empty there."""
    cache: BoundedCache[str, int] = BoundedCache(3)
    cache["a"] = 1
    for twin in (pickle.loads(pickle.dumps(cache)), copy.copy(cache), copy.deepcopy(cache)):
        assert (dict(twin), twin.max_size) == ({}, 3)
