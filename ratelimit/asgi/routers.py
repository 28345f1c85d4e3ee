"""Routers for FastAPI: a caller reads its own limits and quotas; an operator overrides, resets and blocks."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

from starlette.requests import Request

from ratelimit.asgi.authorization import Authorize, check_authorize, operator_of
from ratelimit.asgi.caller_status import limits_of_caller, quotas_of_caller
from ratelimit.asgi.callers import identity_of
from ratelimit.asgi.decorators import exempt
from ratelimit.asgi.middleware import limiter_of
from ratelimit.asgi.route_models import (
    BlockRequest,
    BlockStatus,
    Caller,
    CallerStatus,
    HealthStatus,
    OverrideRequest,
    OverrideStatus,
    QuotaStatus,
    RateLimitStatus,
    Removed,
    ResetRequest,
    ResetResult,
)
from ratelimit.errors import ConfigurationError, MissingMiddlewareError, StoreError
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity

if TYPE_CHECKING:
    from fastapi import APIRouter

_TAGS = ["rate limits"]
_OPERATOR: Final = "ratelimit.operator"
"""The key of the scope under which a route of operators finds who makes the request."""

_JSON: Final = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.IGNORECASE)
"""The media types of a body that is JSON (RFC 8259 §11, RFC 6839 §3.1)."""


def usage_routes(limiter: Limiter | None = None) -> "APIRouter":
    """Return a router for callers: `GET /rate-limits` and `GET /quotas` tell what the caller has left.

    They are not charged, and served also to a caller that is refused elsewhere. `GET /rate-limits?method=POST&endpoint=…`
    tells what applies at a route template; without it, all that counts by caller and not by endpoint. Capacity and
    shadows are left out. Without a `limiter`, that of the middleware tells. An unavailable store is answered with 503.
    """
    from fastapi import APIRouter  # noqa: PLC0415 - starlette is enough for all else

    router = APIRouter(tags=list(_TAGS), route_class=_route_class())

    @router.get("/rate-limits")
    @exempt
    async def rate_limits(request: Request, endpoint: str | None = None, method: str = "GET") -> list[RateLimitStatus]:
        """Return what is left of the caller's rate limits."""
        return await _limits(limiter or limiter_of(request), await identity_of(request), method, endpoint)

    @router.get("/quotas")
    @exempt
    async def quotas(request: Request) -> list[QuotaStatus]:
        """Return what the caller has used of its quotas."""
        return await _quotas(limiter or limiter_of(request), await identity_of(request))

    return router


def admin_routes(limiter: Limiter | None = None, *, authorize: Authorize) -> "APIRouter":
    """Return a router for operators: `/overrides`, `/blocks`, `/usage` and `/reset`.

    `authorize` is asked for each request, before its body is read: what is false is answered with 403, and a name is kept with
    what is changed. A body has to say that it is JSON: no page of another site can send one without a preflight (Fetch).
    Nothing is charged. A wrong value is answered with 422, which names the field, an unavailable store with 503. Mount it
    below a prefix of its own: `app.include_router(admin_routes(authorize=…), prefix="/internal/limits")`.
    """
    from fastapi import APIRouter, Depends  # noqa: PLC0415

    check_authorize(authorize)

    router = APIRouter(tags=list(_TAGS), route_class=_route_class(authorize))
    _add_overrides(router, limiter, Annotated[str | None, Depends(_operator)])
    _add_blocks(router, limiter, Annotated[str | None, Depends(_operator)])
    _add_lookups(router, limiter)
    return router


def health_route(limiter: Limiter | None = None, *, path: str = "/health/rate-limits") -> "APIRouter":
    """Return a router with one route for probes and people, which tells how the limiter and its store are.

    200 where it counts in its store, 503 where it decides without it; the app is served either way. Never charged.
    """
    from fastapi import APIRouter, Response  # noqa: PLC0415

    router = APIRouter(tags=list(_TAGS))

    @router.get(path, responses={503: {"model": HealthStatus, "description": "The limiter decides without its store"}})
    @exempt
    async def health(request: Request, response: Response) -> HealthStatus:
        """Return how the limiter and its store are."""
        found = await (limiter or limiter_of(request)).health()
        response.status_code = 200 if found.ok else 503
        return HealthStatus(**asdict(found))

    return router


def _add_overrides(router: "APIRouter", limiter: Limiter | None, operator: Any) -> None:
    @router.get("/overrides")
    @exempt
    async def overrides(request: Request) -> list[OverrideStatus]:
        """Return the overrides that hold."""
        return [OverrideStatus.of(each) for each in await (limiter or limiter_of(request)).overrides.list()]

    @router.put("/overrides")
    @exempt
    async def set_override(request: Request, wanted: OverrideRequest, by: operator) -> list[OverrideStatus]:
        """Let another rate hold for a caller, a plan, or all callers."""
        await (limiter or limiter_of(request)).overrides.set(**wanted.model_dump(), by=by)
        return await overrides(request)

    @router.delete("/overrides")
    @exempt
    async def delete_override(
        request: Request, policy: str, key: str | None = None, plan: str | None = None
    ) -> Removed:
        """Remove an override; `key` is JSON."""
        found = (limiter or limiter_of(request)).overrides
        return Removed(removed=await found.delete(policy=policy, key=_parsed_key(key), plan=plan))


def _add_blocks(router: "APIRouter", limiter: Limiter | None, operator: Any) -> None:
    @router.get("/blocks")
    @exempt
    async def blocks(request: Request) -> list[BlockStatus]:
        """Return the callers that are blocked."""
        return [BlockStatus.of(each) for each in await (limiter or limiter_of(request)).blocks.list()]

    @router.put("/blocks")
    @exempt
    async def set_block(request: Request, wanted: BlockRequest, by: operator) -> list[BlockStatus]:
        """Block all callers with these values."""
        await (limiter or limiter_of(request)).block(**wanted.model_dump(), by=by)
        return await blocks(request)

    @router.delete("/blocks")
    @exempt
    async def delete_block(request: Request, key: str) -> Removed:
        """Remove a block; `key` is JSON."""
        return Removed(removed=await (limiter or limiter_of(request)).blocks.delete(_parsed_key(key) or {}))


def _add_lookups(router: "APIRouter", limiter: Limiter | None) -> None:
    @router.post("/usage")
    @exempt
    async def usage(request: Request, caller: Caller, endpoint: str | None = None, method: str = "GET") -> CallerStatus:
        """Return what a caller has left of its limits and quotas."""
        found, identity = limiter or limiter_of(request), caller.identity()
        limits = await _limits(found, identity, method, endpoint)
        return CallerStatus(limits=limits, quotas=await _quotas(found, identity))

    @router.post("/reset")
    @exempt
    async def reset(request: Request, wanted: ResetRequest) -> ResetResult:
        """Empty what a caller has used."""
        found = limiter or limiter_of(request)
        return ResetResult(emptied=await found.reset(wanted.caller.identity(), wanted.policy))


async def _limits(limiter: Limiter, identity: Identity, method: str, endpoint: str | None) -> list[RateLimitStatus]:
    if endpoint is not None and not limiter.resolver.knows(method, endpoint):
        raise _no_such_endpoint(endpoint)
    return [RateLimitStatus.of(each) for each in await limits_of_caller(limiter, identity, method, endpoint)]


async def _quotas(limiter: Limiter, identity: Identity) -> list[QuotaStatus]:
    return [QuotaStatus.of(each) for each in await quotas_of_caller(limiter, identity)]


def _no_such_endpoint(endpoint: str) -> Exception:
    from fastapi import HTTPException  # noqa: PLC0415

    return HTTPException(404, f"no route has the template {endpoint:.100}")


def _parsed_key(text: str | None) -> dict[str, str] | None:
    try:
        key = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        key = text
    if key is not None and not isinstance(key, dict):
        raise ConfigurationError(f'key: {text!r:.100} is no JSON object, such as {{"org": "acme"}} [RL306]')
    return key


def _operator(request: Request) -> str | None:
    """Return the name of the operator who makes a request, which the class of its route has authorized."""
    name: str | None = request.scope[_OPERATOR]
    return name


def _route_class(authorize: Authorize | None = None) -> Any:
    """Return a class of routes that ask `authorize` before anything else, and answer the limiter's errors with 422 and 503."""
    from fastapi import HTTPException  # noqa: PLC0415
    from fastapi.routing import APIRoute  # noqa: PLC0415

    class LimiterRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Any:
                if authorize is not None:
                    request.scope[_OPERATOR] = await operator_of(authorize, request)
                    if request.method == "POST" and not _JSON.match(request.headers.get("content-type", "")):
                        raise HTTPException(415, "say Content-Type: application/json")
                try:
                    return await handle(request)
                except MissingMiddlewareError:
                    raise
                except ConfigurationError as error:
                    raise HTTPException(422, str(error)) from None
                except StoreError:
                    raise HTTPException(503, "the store is unavailable") from None

            return handled

    return LimiterRoute
