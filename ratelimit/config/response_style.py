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


def _check_problem_base(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", value):
        raise invalid(f"{value!r} is not an absolute URI, such as 'https://docs.example.com/api-errors#'")
    return value


class ResponseStyle(FrozenModel):
    """Choose the headers and the body of responses; the defaults are the field's common form.

    `headers`: `"x-ratelimit"`, `"ietf"` or both. `scope_header`: send `X-RateLimit-Scope`. `retry_after`:
    `"rejected"`, or `"exhausted"` to send `Retry-After` also with the last request that is served. `problem`:
    `"rfc9457"` or the flat `"legacy"` JSON (always `application/json`). `problem_base`: a URI prefix to which the
    code is appended. `titles`: by code. `capacity_status`: for policies of scope `global`.
    """

    headers: Annotated[Sequence[Literal["x-ratelimit", "ietf"]], AsList, AfterValidator(tuple)] = ("x-ratelimit",)
    scope_header: bool = True
    retry_after: Literal["rejected", "exhausted"] = "rejected"
    problem: Literal["rfc9457", "legacy"] = "rfc9457"
    media_type: Literal["application/problem+json", "application/json"] = "application/problem+json"
    problem_base: Annotated[str | None, AfterValidator(_check_problem_base)] = None
    titles: Mapping[str, str] = Field(default_factory=dict)
    capacity_status: Literal[429, 503] = 429

    @cached_property
    def rendered(self) -> BoundedCache[tuple[object, ...], tuple[int, bytes, bytes]]:
        """Problems that were rendered in this style lately: in a flood they are alike for a second."""
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
