"""Trio: an app whose server runs no asyncio does not start, and says why."""

import subprocess
import sys
from pathlib import Path

from tests.support.ports import free_port

APP = """
from starlette.applications import Starlette
from ratelimit import Limit, RateLimitMiddleware, RateLimitSettings

app = Starlette()
app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings(limits=[Limit(name="a", rate="2/minute", per="ip")]))
"""


def test_an_app_served_by_trio_does_not_start(tmp_path: Path) -> None:
    """The server ends, rather than answering each request with 500; the message names a worker that works."""
    (tmp_path / "served.py").write_text(APP)
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{free_port()}", "served:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "serve the app by asyncio (hypercorn -k asyncio), not by trio [RL220]" in ended.stdout + ended.stderr
