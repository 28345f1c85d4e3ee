"""What a command works on: the settings of a file or of an app, and a limiter on their store."""

import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ratelimit.asgi.identify import client_address
from ratelimit.asgi.middleware import RateLimitMiddleware
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.routing.framework import router_of
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.settings_check import check_file
from ratelimit.limiter import Limiter
from ratelimit.model.identity import HashedValue, Identity
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.named_policies import check_hash
from ratelimit.stores.urls import open_store

PATIENT_TIMEOUT_S: Final = 2.0
"""Seconds that a call of the command line to the store may take: no request waits for it."""

_MAX_LAYERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The settings, the app that has them (if it was named), and the file that they are from (if they are from one)."""

    settings: RateLimitSettings
    app: Any = None
    file: str | None = None
    has_own_identify: bool = True

    def place(self, limiter: Limiter, method: str, path: str) -> Endpoint:
        """Return the endpoint of a path: by the app's own routes, or where no app was named, the path as its template."""
        if self.app is None:
            return limiter.resolver.route(method.upper(), path)
        scope = {"type": "http", "method": method.upper(), "path": path, "headers": [], "root_path": ""}
        return EndpointMatcher(self.app, limiter.resolver).find(scope)

    @asynccontextmanager
    async def limiter(self, *, shared: bool = True) -> AsyncIterator[Limiter]:
        """Open a limiter that counts nothing itself; `shared` where it has to see the counters of the running app."""
        if shared and self.settings.store.startswith("memory:"):
            raise ConfigurationError(
                "store: the app counts in its own memory, which no command can see; name a shared store: --store redis://… [RL803]"
            )
        store = open_store(self.settings.store, timeout=PATIENT_TIMEOUT_S)
        limiter = Limiter(self.settings, store)
        if self.app is not None:  # Policies of decorators are known then.
            EndpointMatcher(self.app, limiter.resolver).read_routes()
        limiter.enforcer.workers.is_onlooker = True
        try:
            yield limiter
        finally:
            await limiter.aclose()


def load_target(config: str | None, app: str | None, store: str | None) -> Target:
    """Return what `--config`, `--app` and `--store` name.

    `config` is a TOML file or `module:object`, `app` is `module:object`, and the object may be a function that returns it.
    A wrong value raises `ConfigurationError` or pydantic's `ValidationError`.
    """
    found = None if app is None else imported(app)
    if config is None and found is None:
        raise ConfigurationError(
            "name the settings: --config limits.toml (or RATELIMIT_CONFIG), --config module:settings or --app module:app (or RATELIMIT_APP) [RL801]"
        )
    file = config if config is not None and ":" not in config else None
    has_own_identify = True
    if config is not None:
        settings = _settings(config, imported(config)) if file is None else _from_file(file)
    else:
        settings, has_own_identify = _settings_of_app(str(app), found)
    if store is not None:
        settings = settings.model_copy(update={"store": store})
    return Target(settings=settings, app=found, file=file, has_own_identify=has_own_identify)


def _from_file(file: str) -> RateLimitSettings:
    settings, findings = check_file(file)
    if settings is None:
        raise ConfigurationError("\n".join(f"{each.place}: {each.message} [{each.code}]" for each in findings))
    return settings


@cache
def imported(name: str) -> Any:
    """Return the object that `module:object` names, or what it returns if it is a function without arguments."""
    module, separator, attribute = name.partition(":")
    if not (module and separator and attribute):
        raise ConfigurationError(f"{name!r} is not module:object, such as main:app [RL801]")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigurationError(f"{name}: {type(error).__name__}: {error} [RL802]") from error
    is_factory = callable(found) and hasattr(found, "__code__") and not found.__code__.co_argcount
    return found() if is_factory else found


def _settings(name: str, found: Any) -> RateLimitSettings:
    if not isinstance(found, RateLimitSettings):
        raise ConfigurationError(f"{name} is {type(found).__name__}, and not RateLimitSettings [RL802]")
    return found


def _settings_of_app(name: str, app: Any) -> tuple[RateLimitSettings, bool]:
    """Return the settings of the app's `RateLimitMiddleware`, and whether it tells callers apart by itself."""
    found = _middleware_of(app)
    if found is None:
        raise ConfigurationError(f"{name}: the app has no RateLimitMiddleware [RL802]")
    return found


def without_middleware(name: str) -> Any:
    """Return the app of that name where it has routes and no `RateLimitMiddleware`, else `None`."""
    app = imported(name)
    return app if _middleware_of(app) is None and router_of(app) is not None else None


def _middleware_of(app: Any) -> tuple[RateLimitSettings, bool] | None:
    for _ in range(_MAX_LAYERS):
        if isinstance(app, RateLimitMiddleware):
            return app.limiter.settings, app.has_own_identify
        for each in getattr(app, "user_middleware", ()):
            if isinstance(each.cls, type) and issubclass(each.cls, RateLimitMiddleware):
                limiter, settings = each.kwargs.get("limiter"), each.kwargs.get("settings")
                found = settings if limiter is None else limiter.settings
                return found or RateLimitSettings(), each.kwargs.get("identify") is not None
        app = getattr(app, "app", None)
    return None


def identity_of(
    *,
    token: str | None,
    token_hash: str | None,
    org: str | None,
    ip: str | None,
    plan: str | None,
    priority: str | None,
    dimension: tuple[str, ...],
    grant: tuple[str, ...],
) -> Identity:
    """Return the caller that the options of a command describe; a wrong value raises `ConfigurationError`."""
    if token is not None and token_hash is not None:
        raise ConfigurationError("--token and --token-hash: give one of them [RL801]")
    if token_hash is not None:
        token = HashedValue(check_hash("token_hash", token_hash))
    return Identity(
        token=token,
        org=org,
        ip=None if ip is None else client_address(ip),
        plan=plan,
        priority=priority,
        dimensions=_pairs("--dimension", dimension),
        rates=_pairs("--grant", grant),
    )


def _pairs(option: str, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, separator, value in pairs:
        if not (name and separator and value):
            raise ConfigurationError(f"{option}: {name}{separator}{value} is not NAME=VALUE [RL801]")
    return {name: value for name, _, value in pairs}
