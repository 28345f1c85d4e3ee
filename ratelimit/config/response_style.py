"""Response styles: which headers and which body a response has, by path."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.config.fields import AsList, FrozenModel, check_path, invalid
from ratelimit.config.path_pattern import PathPattern

_MAX_RENDERED: Final = 512
_FIELD_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

RATE_LIMIT_HEADERS: Final = (
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-RateLimit-Scope",
    "RateLimit",
    "RateLimit-Policy",
)
"""All header fields that a limiter may send beside those of its bodies."""


def _check_problem_base(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", value):
        raise invalid(f"{value!r} is not an absolute URI, such as 'https://docs.example.com/api-errors#' [RL117]")
    return value


def _check_header_names(names: Mapping[str, str]) -> Mapping[str, str]:
    standard = {name.lower() for name in RATE_LIMIT_HEADERS}
    for own, name in names.items():
        if own.lower() not in standard:
            raise invalid(f"{own!r:.100} is not one of {', '.join(RATE_LIMIT_HEADERS)} [RL117]")
        if not re.fullmatch(_FIELD_NAME, name):
            raise invalid(f"{name!r:.100} is not the name of a header [RL117]")
    sent = [name.lower() for name in names.values()] + [own for own in standard if own not in map(str.lower, names)]
    if len(set(sent)) < len(sent):
        raise invalid("two headers have one name [RL117]")
    return names


class ResponseStyle(FrozenModel):
    """Choose the headers and the body of responses; the defaults are the field's common form.

    `headers`: `"x-ratelimit"`, `"ietf"` or both. `scope_header`: send `X-RateLimit-Scope`. `retry_after`:
    `"rejected"`, or `"exhausted"` to send `Retry-After` also with the last request that is served. `problem`:
    `"rfc9457"` or the flat `"legacy"` JSON (always `application/json`). `problem_base`: a URI prefix to which the
    code is appended. `titles`: by code. `capacity_status`: for policies of scope `global`. `members`: `"documented"` for
    `type`, `title`, `status`, `detail` (and `scope`, with `scope_header`) of a problem and no more. `header_names`: other
    names for the header fields, by their usual ones; where the app sends one of them itself, none is added.
    """

    headers: Annotated[Sequence[Literal["x-ratelimit", "ietf"]], AsList, AfterValidator(tuple)] = ("x-ratelimit",)
    scope_header: bool = True
    retry_after: Literal["rejected", "exhausted"] = "rejected"
    problem: Literal["rfc9457", "legacy"] = "rfc9457"
    media_type: Literal["application/problem+json", "application/json"] = "application/problem+json"
    problem_base: Annotated[str | None, AfterValidator(_check_problem_base)] = None
    titles: Mapping[str, str] = Field(default_factory=dict)
    capacity_status: Literal[429, 503] = 429
    members: Literal["all", "documented"] = "all"
    header_names: Annotated[Mapping[str, str], AfterValidator(_check_header_names)] = Field(default_factory=dict)

    @cached_property
    def renamed(self) -> dict[bytes, bytes]:
        """The names of `header_names`, as they are sent."""
        return {own.lower().encode(): name.lower().encode() for own, name in self.header_names.items()}

    @cached_property
    def rendered(self) -> BoundedCache[tuple[object, ...], tuple[int, bytes, bytes]]:
        """Problems that were rendered in this style lately: in a flood they are alike for a second."""
        return BoundedCache(_MAX_RENDERED)

    @cached_property
    def refusals(self) -> BoundedCache[tuple[object, ...], tuple[int, bytes, list[tuple[bytes, bytes]]]]:
        """Status, body and header fields of refusals that were sent in this style lately."""
        return BoundedCache(_MAX_RENDERED)


class PathStyle(FrozenModel):
    """Give the paths that match one of `paths` a style of their own."""

    paths: Annotated[Sequence[str], AsList, Field(min_length=1)]
    style: ResponseStyle

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, (tuple, list)) and len(value) == 2:
            paths, style = value
            return {"paths": paths, "style": style}
        return value

    @field_validator("paths")
    @classmethod
    def _check_paths(cls, values: Sequence[str]) -> tuple[str, ...]:
        return tuple(check_path(value) for value in values)

    @cached_property
    def patterns(self) -> tuple[PathPattern, ...]:
        """The compiled paths."""
        return tuple(PathPattern(path) for path in self.paths)
