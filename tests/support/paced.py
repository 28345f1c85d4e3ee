"""A process that waits for turns and delivers, and tells when its turns began: `python -m tests.support.paced <redis> <receiver> <name> <turns>`."""

import asyncio
import json
import sys

import httpx

from ratelimit import Pacer

WORKERS = 20


async def main(store: str, receiver: str, name: str, turns: int) -> None:
    begun = list[float]()
    pacer = Pacer("100/second", per="subscription", store=store)
    async with httpx.AsyncClient(base_url=receiver, limits=httpx.Limits(max_connections=20), timeout=30) as client:
        await client.get("/none")

        numbers = iter(range(turns))

        async def work() -> None:
            for number in numbers:
                await pacer.wait("sub_1")
                begun.append(asyncio.get_running_loop().time())
                (await client.post(f"/hooks/{name}/{number}")).raise_for_status()

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(work() for _ in range(WORKERS)))
    await pacer.aclose()
    sys.stdout.write(json.dumps([pacer.missed, begun]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
