import os

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from ratelimit import Decision, Identity, Limit, RateLimitMiddleware, RateLimitSettings, limit, limiter_of
from ratelimit.asgi.identify import ClientAddress, api_key

address = ClientAddress()


def identify(connection: HTTPConnection) -> Identity:
    return Identity(token=api_key(connection) or address(connection))


def too_many_requests(request: Request, decision: Decision) -> JSONResponse:
    return JSONResponse({"detail": "Slow down"}, status_code=429)


settings = RateLimitSettings(
    store=os.environ.get("STORE", "memory://"),
    limits=[Limit(name="chat", rate="3/minute", per="token", manual=True)],
)
app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    settings=settings,
    identify=identify,
    on_refused=too_many_requests,
)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/messages", dependencies=[Depends(limit("5/minute", per="token"))])
async def messages() -> dict[str, list[int]]:
    return {"messages": [1, 2]}


@app.get("/messages/{message_id}", dependencies=[Depends(limit("4/minute", per="token"))])
async def message(message_id: int) -> dict[str, int]:
    return {"message": message_id}


@app.post(
    "/messages",
    dependencies=[
        Depends(limit("3/minute", per="token")),
        Depends(limit("5/minute")),
    ],
)
async def send() -> dict[str, str]:
    return {"message": "sent"}


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        decision = await limiter_of(websocket).message(websocket, "chat")
        await websocket.send_text(f"you said {text}" if decision.allowed else "slow down")
