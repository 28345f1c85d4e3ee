"""`console`: the web console on this machine, for the counters of a shared store."""

import asyncio
import secrets
from typing import Any, Final

import click
from rich.text import Text
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ratelimit.cli.options import run, settings_options
from ratelimit.cli.output import console as terminal
from ratelimit.cli.target import Target
from ratelimit.errors import ConfigurationError

_COOKIE: Final = "ratelimit_key"
_STARTUP_S: Final = 0.05


class KeyHolder:
    """Authorizes the browser that has opened the address with the key, which is another at each start."""

    def __init__(self, name: str | None) -> None:
        self.key = secrets.token_urlsafe(16)
        self._name = name or "console"

    def __call__(self, request: Request) -> str | None:
        """Return the operator's name; the address with the key leads to one without it, and leaves a cookie."""
        if self._is_key(request.query_params.get("key", "")):
            answer = Response()
            answer.set_cookie(_COOKIE, self.key, httponly=True, samesite="strict")
            headers = {"location": request.url.path, "set-cookie": answer.headers["set-cookie"]}
            raise HTTPException(303, headers=headers)
        return self._name if self._is_key(request.cookies.get(_COOKIE, "")) else None

    def _is_key(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "replace"), self.key.encode())


@click.command("console")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8800, show_default=True)
@click.option("--read-only", is_flag=True, help="Show everything, and let nothing be changed.")
@click.option("--by", help="Who makes the changes, for the audit trail.")
@settings_options
def console_command(*, target: Target, host: str, port: int, read_only: bool, by: str | None) -> None:
    """Serve the web console for the counters of a shared store, until interrupted.

    Who opens the printed address may see all limits, and change them.
    """
    run(_serve(target, host, port, by, read_only=read_only))


async def _serve(target: Target, host: str, port: int, by: str | None, *, read_only: bool) -> int:
    try:
        import uvicorn  # noqa: PLC0415 - an app that has the console mounted has a server of its own

        from ratelimit.console import console  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'ratelimit-asgi[console]' uvicorn [RL806]"
        ) from error
    holder = KeyHolder(by)
    async with target.limiter() as limiter:
        await limiter.overrides.refresh()  # Says why, where the store does not answer.
        pages: Any = console(limiter, authorize=holder, authorize_changes=None if read_only else holder)
        server = uvicorn.Server(uvicorn.Config(pages, host, port, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
            await asyncio.sleep(_STARTUP_S)
        for each in server.servers if server.started else ():
            port_number = each.sockets[0].getsockname()[1]
            terminal().print(Text(f"the console: http://{host}:{port_number}/?key={holder.key}"), soft_wrap=True)
        await serving
    return 0


COMMANDS = (console_command,)
