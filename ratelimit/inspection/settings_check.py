"""The check of settings: errors of a file with their lines, and lints of settings and routes."""

import logging
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.routing.route_index import RouteIndex
from ratelimit.asgi.startup_checks import startup_warnings
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.findings import Finding, code_of, policy_in, severity_of, without_code
from ratelimit.inspection.lints import lint, lint_routes, most_keys
from ratelimit.inspection.toml_lines import TomlLines
from ratelimit.resolver.resolver import PolicyResolver

_OWN_CODES: Final = {"extra_forbidden": "RL103", "missing": "RL104"}
"""Codes of the mistakes that pydantic words itself."""

_FIELD: Final = re.compile(r"^((?:limits|quotas|concurrency)\.\d+)\.(?:(\w+): )?")
_BETWEEN: Final = re.compile(r"; (?=(?:limits|quotas|concurrency)\.\d+\.)")
"""Stands between two mistakes in one message."""

_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")


class SettingsText:
    """The text of a settings file: knows the line of a field; `None` for settings that are from no file."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self._lines: TomlLines | None = None
        self._prefix: tuple[str, ...] = ()
        if file is not None:
            text = Path(file).read_text("utf-8")
            self._lines = TomlLines(text)
            self._prefix = ("ratelimit",) if "ratelimit" in tomllib.loads(text) else ()

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a field, or `None`."""
        return None if self._lines is None or not path else self._lines.line_of((*self._prefix, *path))

    def place_of(self, path: Sequence[str | int], line: int | None) -> str:
        """Return the place of a finding as people read it."""
        field = ".".join(map(str, path))
        where = "" if self.file is None else self.file if line is None else f"{self.file}:{line}"
        return ": ".join(part for part in (where, field) if part) or "settings"


def check_file(file: str) -> tuple[RateLimitSettings | None, list[Finding]]:
    """Return the settings of a TOML file, or `None` and why they are not valid, each mistake with its line.

    Where there is no file, `ConfigurationError` is raised.
    """
    if not Path(file).is_file():
        raise ConfigurationError(f"{file}: there is no such file [RL101]")
    try:
        return RateLimitSettings.from_file(file), []
    except ValidationError as error:
        text = SettingsText(file)
        return None, [finding for each in error.errors() for finding in _of_pydantic(text, each)]
    except ConfigurationError as error:
        found = _LINE.search(str(error))
        line = None if found is None else int(found[1])
        place = file if line is None else f"{file}:{line}"
        message = without_code(str(error))
        return None, [
            Finding(code=code_of(str(error), "RL101"), severity="error", place=place, message=message, line=line)
        ]


def check_settings(
    settings: RateLimitSettings, *, file: str | None = None, app: Any = None, has_own_identify: bool = True
) -> list[Finding]:
    """Return the lints of valid settings, and of the routes of an app where there is one."""
    text, resolver = SettingsText(file), PolicyResolver(settings)
    index, said = (None, []) if app is None else _read_routes(app, resolver)
    endpoints = [] if index is None else index.endpoints()
    found = [*said, *lint(settings), *lint_routes(resolver, endpoints), *most_keys(resolver, endpoints)]
    if app is None and all(policy.manual for policy in settings.policies):
        found.append("no request is limited: the settings have no limits [RL608]")
    found += startup_warnings(settings, index, has_own_identify=has_own_identify)
    return [_of_lint(text, settings, message) for message in dict.fromkeys(found)]


def check_unlimited_app(app: Any) -> list[Finding]:
    """Return a finding for each decorated route of an app that has no `RateLimitMiddleware`."""
    index, said = _read_routes(app, PolicyResolver(RateLimitSettings()))
    endpoints = [] if index is None else index.endpoints()
    said += [
        f"limit {limit.name!r} on {endpoint.label} has no effect: the app has no RateLimitMiddleware [RL614]"
        for endpoint in endpoints
        for limit in endpoint.limits
    ]
    return [_of_lint(SettingsText(None), RateLimitSettings(), message) for message in said]


def _read_routes(app: Any, resolver: PolicyResolver) -> tuple[RouteIndex | None, list[str]]:
    """Return the routes of an app, and what reading them has said of decorators without an effect."""
    said: list[str] = []
    handler, log = _Collector(said), logging.getLogger("ratelimit")
    log.addHandler(handler)
    try:
        return EndpointMatcher(app, resolver).read_routes(), said
    except ConfigurationError as error:
        return None, [*said, str(error)]
    finally:
        log.removeHandler(handler)


class _Collector(logging.Handler):
    """Collects the texts of warnings."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one text."""
        self._found.append(record.getMessage())


def level_problem(settings: RateLimitSettings, eviction: str) -> Iterable[Finding]:
    """Yield what an eviction policy of the server means for levels."""
    levels = [(f"quotas.{n}", quota) for n, quota in enumerate(settings.quotas) if quota.period is None]
    for place, quota in levels if eviction != "noeviction" else ():
        message = f"level {quota.name!r} may be lost: the server evicts keys (maxmemory-policy {eviction})"
        yield Finding(code="RL613", severity="warning", place=place, message=message)


def _of_pydantic(text: SettingsText, error: Any) -> Iterator[Finding]:
    """Yield the findings of one of pydantic's errors: ours may name several fields in one message."""
    for message in _BETWEEN.split(str(error["msg"])):
        path: list[str | int] = list(error["loc"])
        named = _FIELD.match(message)
        if named is not None and len(path) == 1:
            section, number = named[1].split(".")
            path = [section, int(number), *([named[2]] if named[2] else [])]
            message = message[named.end() :]  # noqa: PLW2901 - the place says it
        code = code_of(message, _OWN_CODES.get(error["type"], "RL105"))
        line = text.line_of(path)
        yield Finding(
            code=code, severity="error", place=text.place_of(path, line), message=without_code(message), line=line
        )


def _of_lint(text: SettingsText, settings: RateLimitSettings, message: str) -> Finding:
    code, name = code_of(message, "RL600"), policy_in(message)
    sections = {"limits": settings.limits, "quotas": settings.quotas, "concurrency": settings.concurrency}
    paths = [(section, n) for section, found in sections.items() for n, each in enumerate(found) if each.name == name]
    path: Sequence[str | int] = paths[0] if paths else ()
    line = text.line_of(path)
    place = text.place_of(path, line)
    return Finding(code=code, severity=severity_of(code), place=place, message=without_code(message), line=line)
