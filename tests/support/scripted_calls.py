"""A server whose answers its client names, and which counts the requests that it serves at once.

Each call names itself in `x-call` and its answers in `x-answers`: `429;retry-after=4 200` is a refusal, then a success.
"""

import asyncio
from collections import Counter, defaultdict
from typing import Any

_seen: Counter[str] = Counter()
_serving: Counter[str] = Counter()
_peak: Counter[str] = Counter()
_barriers: defaultdict[str, asyncio.Barrier] = defaultdict(lambda: asyncio.Barrier(3))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the headers say: at `/threes` to three requests at a time, at `/stream` until the client leaves.

    `/peak/<call>` answers how many requests of that call were served at once, and how many there were.
    """
    if scope["type"] != "http":
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    call, path = headers.get("x-call", ""), scope["path"]
    if path.startswith("/peak/"):
        name = path.removeprefix("/peak/")
        await _answer(send, "200", f"{_peak[name]} {_seen[name]}")
        return
    _seen[call] += 1
    _serving[call] += 1
    _peak[call] = max(_peak[call], _serving[call])
    if path.startswith("/threes"):
        await _barriers[call].wait()
    if path.startswith("/stream"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    _serving[call] -= 1
    answers = headers.get("x-answers", "200").split()
    await _answer(send, answers[min(_seen[call], len(answers)) - 1], str(_seen[call]))


async def _answer(send: Any, answer: str, body: str) -> None:
    status, *fields = answer.split(";")
    headers = [tuple(field.encode().split(b"=", 1)) for field in fields]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
