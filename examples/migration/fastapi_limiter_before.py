from typing import Any

from fastapi import (
    Depends,
    FastAPI,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi_limiter.depends import RateLimiter, WebSocketRateLimiter
from pyrate_limiter import (
    AbstractBucket,
    BucketFactory,
    Duration,
    InMemoryBucket,
    Limiter,
    MonotonicClock,
    Rate,
    RateItem,
)

clock = MonotonicClock()


async def caller(connection: Request | WebSocket) -> str:
    key = connection.headers.get("x-api-key")
    return key or (connection.client.host if connection.client else "unknown")


async def too_many_requests(*args: Any) -> None:
    raise HTTPException(429, "Slow down")


class BucketPerCaller(BucketFactory):
    """Without it, `Limiter(Rate(…))` has one bucket for all callers."""

    def __init__(self, *rates: Rate) -> None:
        self.rates = list(rates)
        self.buckets: dict[str, AbstractBucket] = {}

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, clock.now(), weight=weight)

    def get(self, item: RateItem) -> AbstractBucket:
        if item.name not in self.buckets:
            self.buckets[item.name] = self.create(InMemoryBucket, self.rates)
        return self.buckets[item.name]


def per_caller(*rates: Rate) -> RateLimiter:
    return RateLimiter(Limiter(BucketPerCaller(*rates)), caller, too_many_requests)


def of_all_callers(*rates: Rate) -> RateLimiter:
    return RateLimiter(Limiter(list(rates)), caller, too_many_requests)


per_message = WebSocketRateLimiter(
    Limiter(BucketPerCaller(Rate(3, Duration.MINUTE))),
    caller,
    too_many_requests,
)

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/messages", dependencies=[Depends(per_caller(Rate(5, Duration.MINUTE)))])
async def messages() -> dict[str, list[int]]:
    return {"messages": [1, 2]}


@app.get(
    "/messages/{message_id}",
    dependencies=[Depends(per_caller(Rate(4, Duration.MINUTE)))],
)
async def message(message_id: int) -> dict[str, int]:
    return {"message": message_id}


@app.post(
    "/messages",
    dependencies=[
        Depends(per_caller(Rate(3, Duration.MINUTE))),
        Depends(of_all_callers(Rate(5, Duration.MINUTE))),
    ],
)
async def send() -> dict[str, str]:
    return {"message": "sent"}


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            try:
                await per_message(websocket)
            except HTTPException:
                await websocket.send_text("slow down")
            else:
                await websocket.send_text(f"you said {text}")
    except WebSocketDisconnect:
        pass
