"""The edge: everything that knows HTTP, ASGI and Starlette."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratelimit.asgi.routers import admin_routes, health_route, usage_routes

__all__ = ["admin_routes", "health_route", "usage_routes"]


def __getattr__(name: str) -> Any:
    """Import the routers when one of them is asked for first: their models take time that other apps save."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ratelimit.asgi.routers import admin_routes, health_route, usage_routes  # noqa: PLC0415

    return {"admin_routes": admin_routes, "health_route": health_route, "usage_routes": usage_routes}[name]
