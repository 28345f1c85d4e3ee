"""The routers are imported when they are asked for (`asgi.route_models` too); `tests/behaviour/test_routers.py` has the rest."""

import subprocess
import sys

import pytest

import ratelimit.asgi


def test_an_app_without_the_routers_does_not_load_their_models() -> None:
    """Nor FastAPI."""
    code = "import ratelimit, sys; print({'ratelimit.asgi.routers', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_is_no_attribute() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'routes'"):
        ratelimit.asgi.routes  # noqa: B018
