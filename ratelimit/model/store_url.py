"""Store URLs: the schemes that there are, and what a URL must look like."""

import re
from typing import Final
from urllib.parse import urlsplit

from ratelimit.errors import ConfigurationError

REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel")
SCHEMES: Final = ("memory", *REDIS_SCHEMES)


def check_store_url(url: str) -> None:
    """Raise `ConfigurationError` where `url` names no store; the message never repeats the URL, which may hold a password."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigurationError(f"must begin with one of {', '.join(f'{each}://' for each in SCHEMES)} [RL120]")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("the host is not valid [RL120]") from None
    try:
        for server in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{server}").port
    except ValueError:
        raise ConfigurationError("the port is not a number between 0 and 65535 [RL120]") from None
    if scheme in ("redis", "rediss") and not re.fullmatch(r"[0-9]*", parts.path.strip("/")):
        raise ConfigurationError("the part after the last '/' must be a database number [RL120]")
