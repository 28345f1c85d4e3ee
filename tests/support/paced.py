"""A process that waits for turns and delivers: `python -m tests.support.paced <redis> <receiver> <name> <turns>`."""

import asyncio
import sys

import httpx

from ratelimit import Pacer


async def main(store: str, receiver: str, name: str, turns: int) -> None:
    pacer = Pacer("100/second", per="subscription", store=store)
    async with httpx.AsyncClient(base_url=receiver, limits=httpx.Limits(max_connections=20), timeout=30) as client:
        await client.get("/none")

        async def deliver(number: int) -> None:
            await pacer.wait("sub_1")
            (await client.post(f"/hooks/{name}/{number}")).raise_for_status()

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(deliver(number) for number in range(turns)))
    await pacer.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
