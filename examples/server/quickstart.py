from fastapi import FastAPI

from ratelimit import RateLimitMiddleware, limit

app = FastAPI()
app.add_middleware(RateLimitMiddleware)


@app.get("/hello")
@limit("5/minute", per="ip")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
