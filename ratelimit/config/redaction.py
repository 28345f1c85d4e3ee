"""Values that may hold a secret, and hide it wherever an error shows its input."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from ratelimit.model.store_url import SCHEMES


class RedactedStr(str):
    """A text that may be or hold a secret: `repr` shows the scheme of a store URL and nothing else."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme = self.partition("://")[0]
        return f"'{scheme}://…'" if scheme in SCHEMES else "'…'"


class RedactedValue:
    """Stands for a value of a wrong type that may hold a secret."""

    def __repr__(self) -> str:
        return "…"


def redact(data: Mapping[str, Any], shown: set[str]) -> dict[str, Any]:
    """Return the fields of `data`, with all values redacted but those of the fields `shown`.

    An error shows the input that it is about, here or in the settings that nest these; and the value of a misspelled
    field may be a secret as well.
    """
    return {name: value if name in shown else _redacted(value) for name, value in data.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return RedactedStr(value)
    return value if value is None or isinstance(value, SecretStr) else RedactedValue()
