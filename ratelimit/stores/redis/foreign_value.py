"""Foreign values: what another program has put under a key of this package. Apart from redis-py, which takes time to import."""

from ratelimit.errors import StoreError


class ForeignValue(StoreError):
    """Under a key lies a value of another type than this package writes."""
