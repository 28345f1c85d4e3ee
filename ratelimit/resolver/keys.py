"""Names of counters, made so that two identities never share one."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final
from urllib.parse import quote
from zlib import crc32

from ratelimit.model.identity import HashedValue

MAX_READABLE: Final = 128
"""Characters of a value that a key holds in clear; a longer value is hashed."""

_SAFE: Final = re.compile(r"[A-Za-z0-9._~/-]{1,128}")


def escape(value: object) -> str:
    """Return `value` as text without blanks, colons, braces or control characters; distinct texts stay distinct.

    A text of more than 128 characters is hashed, so that callers cannot choose how much memory a key takes. The hash
    begins with `%h`, which no percent-encoded text does, so it never equals an escaped value.
    """
    text = value if isinstance(value, str) else str(value)
    if _SAFE.fullmatch(text):
        return text
    if len(text) > MAX_READABLE:
        return "%h" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return quote(text, safe="/", errors="surrogatepass")


HASH_DIGITS: Final = 32
"""Hex digits of the hash of a token, or of another hashed value."""


def is_hash(text: str) -> bool:
    """Say whether a text may be a hash, whole: a label has the first eight digits alone."""
    return len(text) == HASH_DIGITS and not set(text) - set("0123456789abcdef")


class KeyBuilder:
    """Builds the keys of one limiter: they share a prefix, and the secret by which tokens and `hashed` dimensions are hashed.

    A key is `<prefix>:{<partition>}:<policy>:<period>:<values>`. The partition is the hash tag: all keys of one
    partition live on the same node of a Redis Cluster. With `partitions` there are only so many hash tags:
    `<prefix>:{<number>}:{<partition>}:…`, by a hash of the partition.
    """

    def __init__(
        self,
        *,
        prefix: str = "rl",
        secret: str | None = None,
        hashed: Iterable[str] = (),
        partitions: int | None = None,
    ) -> None:
        self.prefix, self._partitions = escape(prefix), partitions
        self.hashed_dimensions = {"token", *hashed}
        self._secret = blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=32).digest() if secret else b""

    def tagged(self, partition: str) -> str:
        """Return a partition with the hash tag before it, where there is a number of them: `7}:{acme`, to be put in braces."""
        if self._partitions is None:
            return partition
        return f"{crc32(partition.encode()) % self._partitions}}}:{{{partition}"

    def value(self, dimension: str, value: object) -> str:
        """Return the value of a dimension as keys hold it: hashed or escaped."""
        return self.hashed(value) if dimension in self.hashed_dimensions else escape(value)

    def hashed(self, token: object) -> str:
        """Return the 32 hex digits that stand for a token outside this process (BLAKE2b, keyed by the secret)."""
        if isinstance(token, HashedValue):
            return str(token)
        text = token if isinstance(token, str) else str(token)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._secret).hexdigest()
