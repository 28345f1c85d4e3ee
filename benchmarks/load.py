"""A load generator for machines without `wrk`: sends requests as fast as the server answers, over persistent connections.

`python -m benchmarks.load PORT CONNECTIONS SECONDS TOKENS` prints its counts as JSON.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from itertools import count
from time import perf_counter

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def generate_load(port: int, connections: int, seconds: float, tokens: int) -> dict[str, float]:
    """Keep one request in flight on each connection, and count the answers."""
    numbers, ends = count(), perf_counter() + seconds
    began = perf_counter()
    answers = await asyncio.gather(*(_connection(port, numbers, ends, tokens) for _ in range(connections)))
    return {"per_second": sum(answers) / (perf_counter() - began), "answers": sum(answers)}


async def _connection(port: int, numbers: Iterator[int], ends: float, tokens: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while perf_counter() < ends:
        writer.write(
            b"GET /items/1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t%d\r\n\r\n" % (next(numbers) % tokens)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        answers += 1
    writer.close()
    return answers


if __name__ == "__main__":
    port, connections, seconds, tokens = sys.argv[1:]
    print(json.dumps(asyncio.run(generate_load(int(port), int(connections), float(seconds), int(tokens)))))
