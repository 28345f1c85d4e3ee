"""Serves `app.py`, sends lively traffic to it, and prints the address of the console. Ends with Ctrl-C."""

import argparse
import asyncio
import random
import secrets
import sys
from contextlib import suppress

import httpx
from rich.console import Console

from examples._support.serving import DemoError, serving

out = Console(highlight=False)

ORGANIZATIONS = [
    *((f"startup{number}", "starter", 0.02) for number in range(12)),
    *((f"shop{number}", "business", 1.5) for number in range(8)),
    ("acme", "trial", 2.0),
    ("globex", "enterprise", 8.0),
    ("initech", "trial", 6.0),
]
"""Organizations, their plans, and how many requests a second each sends."""

_ROUTES = (
    ("GET", "/api/agents", 10),
    ("GET", "/api/agents/7", 6),
    ("POST", "/api/agents", 2),
    ("GET", "/api/search", 3),
    ("POST", "/api/handler/answer", 3),
    ("GET", "/api/exports/full", 0.2),
    ("POST", "/api/backfill", 1),
)
_WEIGHTS = [weight for _, _, weight in _ROUTES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="memory://", help="the store of the counters, such as redis://localhost")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    options = parser.parse_args()
    try:
        asyncio.run(show(options.store, options.seconds))
    except DemoError as error:
        out.print(f"[bold red]not as promised:[/] {error}")
        return 1
    except KeyboardInterrupt:
        out.print("stopped")
    return 0


async def show(store: str, seconds: float | None) -> None:
    password = secrets.token_hex(4)
    environment = {"RATELIMIT_STORE": store, "RATELIMIT_STATISTICS": "1", "CONSOLE_PASSWORD": password}
    async with serving("examples.console.app:app", **environment) as url:
        out.print(
            f"the console:        [bold]{url}/console/[/]   name: [bold]you[/]   password: [bold]{password}[/]",
            soft_wrap=True,
        )
        out.print(f"a caller's own page: curl -H 'Authorization: Bearer tk_acme_trial_0' {url}/limits/", soft_wrap=True)
        out.print("traffic of 23 organizations is on its way; Ctrl-C ends it")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), httpx.AsyncClient(base_url=url, timeout=10) as client:
                await asyncio.gather(*(send(client, *each) for each in ORGANIZATIONS))


async def send(client: httpx.AsyncClient, organization: str, plan: str, rate: float) -> None:
    """Send the requests of one organization, by three tokens, at random intervals."""
    while True:
        await asyncio.sleep(random.expovariate(rate))
        method, path, _ = random.choices(_ROUTES, _WEIGHTS)[0]
        token = f"tk_{organization}_{plan}_{random.randrange(3)}"
        await client.request(method, path, headers={"authorization": f"Bearer {token}"})


if __name__ == "__main__":
    sys.exit(main())
