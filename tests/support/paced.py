"""A process that waits and delivers: `python -m tests.support.paced <how> <redis> <receiver> <name> <how many>`.

It tells how many turns it missed, and when those that it took began. How: `pacer`, `throttle` (shared), `alone` (half each).
"""

import asyncio
import json
import sys

import httpx

from ratelimit import Pacer, Throttle

WORKERS = 20


async def main(how: str, store: str, receiver: str, name: str, many: int) -> None:
    begun = list[float]()
    pacer = Pacer("100/second", per="subscription", store=store)
    throttle = Throttle("100/second", store=store) if how == "throttle" else Throttle("50/second")
    async with httpx.AsyncClient(base_url=receiver, limits=httpx.Limits(max_connections=20), timeout=30) as client:
        await client.get("/none")
        numbers = iter(range(many))

        async def work() -> None:
            for number in numbers:
                await (pacer.wait("sub_1") if how == "pacer" else throttle.wait())
                begun.append(asyncio.get_running_loop().time())
                (await client.post(f"/hooks/{name}/{number}")).raise_for_status()

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(work() for _ in range(WORKERS)))
    await pacer.aclose()
    await throttle.aclose()
    sys.stdout.write(json.dumps([pacer.missed, begun]))


if __name__ == "__main__":
    _, how, store, receiver, name, many = sys.argv
    asyncio.run(main(how, store, receiver, name, int(many)))
