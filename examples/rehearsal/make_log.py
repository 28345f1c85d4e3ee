"""Writes an access log of a made-up API, as nginx writes it: 1,900 honest callers, three that overdo it, and a busy noon.

`python -m examples.rehearsal.make_log FILE [LINES]`
"""

import math
import random
import sys
import time
from pathlib import Path
from zlib import crc32

FORMAT = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent $request_time'
START = 1_795_132_800  # 20 November 2026, midnight UTC.
DAY = 86_400
ROUTES = ("/v1/agents/{}", "/v1/agents/{}/runs", "/v1/runs", "/v1/exports/full")
ABUSERS = {"tk_scraper": (3, 5, 6000), "tk_loop": (11, 12, 3600), "tk_cron": (17, 20, 2400)}
"""When each begins (hour), its requests a second, and how many there are."""


def main(path: str, lines: int = 200_000) -> None:
    """Write so many lines."""
    chance = random.Random(11)
    weights = [chance.lognormvariate(0, 1) for _ in range(1900)]
    found = [
        (hour * 3600 + number / rate, name) for name, (hour, rate, count) in ABUSERS.items() for number in range(count)
    ]
    honest = chance.choices([f"tk_{n}" for n in range(1900)], weights, k=max(0, lines - len(found)))
    found += [(_instant(chance), name) for name in honest]
    with Path(path).open("w") as log:
        log.writelines(_line(at, who, chance) for at, who in sorted(found))


def _instant(chance: random.Random) -> float:
    """Return an instant of the day; most are around noon."""
    while True:
        at = chance.random() * DAY
        if chance.random() < 0.25 + 0.75 * math.exp(-(((at - DAY / 2) / 14_000) ** 2)):
            return at


def _line(at: float, who: str, chance: random.Random) -> str:
    path = chance.choices(ROUTES, (60, 25, 14, 1))[0].format(chance.randrange(400))
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(START + at))
    address = f"10.{hash_of(who) % 200}.{hash_of(who) // 200 % 200}.7"
    status = chance.choices((200, 404, 500), (96, 3, 1))[0]
    return f'{address} - {who} [{stamp}] "GET {path} HTTP/1.1" {status} 512 {chance.expovariate(8):.3f}\n'


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    return crc32(text.encode()) % 40_000


if __name__ == "__main__":
    main(sys.argv[1], *(int(each) for each in sys.argv[2:3]))
