"""Store URLs: an error names the wrong part, and never repeats the URL, which may hold a password."""

import pytest

from ratelimit import ConfigurationError
from ratelimit.model.store_url import check_store_url


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "redis://localhost",
        "redis://user:p%40ss@[::1]:6380/3?socket_timeout=1",
        "rediss://localhost/0",
        "unix:///run/redis.sock",
        "redis+cluster://a:1,b:2",
        "redis+sentinel://a,b:26379/name/2",
    ],
)
def test_every_scheme_is_known(url: str) -> None:
    """A URL that may open a store passes."""
    check_store_url(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", "must begin with one of memory://, redis://"),
        ("http://user:hunter2@localhost", "must begin with one of"),
        ("redis:/user:hunter2@localhost", "must begin with one of"),
        ("redis://user:hunter2@[::1", "the host is not valid"),
        ("redis://user:hunter2@localhost:70000", "the port is not a number between 0 and 65535"),
        ("redis+cluster://user:hunter2@a:1,b:x", "the port is not a number between 0 and 65535"),
        ("redis://user:hunter2@localhost/name", "the part after the last '/' must be a database number"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, message: str) -> None:
    """The message names the part, and never the password."""
    with pytest.raises(ConfigurationError, match=message) as error:
        check_store_url(url)
    assert "hunter2" not in str(error.value)
