"""How answers look, by path."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ratelimit.fields import Checked, OneOrMore, check_path

_CONVERTOR: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*):[^}]*\}")


class PathPattern:
    """Matches route templates by a template or a glob, in which `*` stands for anything and `?` for one character."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        # As routes are read: convertors and a slash at the end make no other endpoint.
        self._plain = _CONVERTOR.sub(r"{\1}", pattern).rstrip("/") or "/"
        # '[' begins a character set in fnmatch; in a path it is only itself.
        self._matches = re.compile(fnmatch.translate(self._plain.replace("[", "[[]"))).match

    def __call__(self, template: str) -> bool:
        """Say whether the template is this pattern or fits it."""
        template = template.rstrip("/") or "/"
        return template == self._plain or self._matches(template) is not None


def _problem_base(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", value):
        raise ValueError(f"{value!r} is not an absolute URI, such as 'https://docs.example.com/api-errors#'")
    return value


class ResponseStyle(Checked):
    """Choose how answers look; the defaults are the field's common form.

    `headers`: `"x-ratelimit"`, `"ietf"` or both. `scope_header`: send `X-RateLimit-Scope`. `retry_after`:
    `"rejected"`, or `"exhausted"` to send `Retry-After` also with the last request that is served. `problem`:
    `"rfc9457"` or the flat `"legacy"` JSON (always `application/json`). `problem_base`: a URI prefix to which the
    code is appended. `titles`: by code. `capacity_status`: for policies of scope `global`.
    """

    headers: Annotated[Sequence[Literal["x-ratelimit", "ietf"]], OneOrMore, AfterValidator(tuple)] = ("x-ratelimit",)
    scope_header: bool = True
    retry_after: Literal["rejected", "exhausted"] = "rejected"
    problem: Literal["rfc9457", "legacy"] = "rfc9457"
    media_type: Literal["application/problem+json", "application/json"] = "application/problem+json"
    problem_base: Annotated[str | None, AfterValidator(_problem_base)] = None
    titles: Mapping[str, str] = Field(default_factory=dict)
    capacity_status: Literal[429, 503] = 429


class PathResponse(Checked):
    """Give the paths that fit one of `paths` a style of their own."""

    paths: Annotated[Sequence[str], OneOrMore, Field(min_length=1)]
    style: ResponseStyle

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, (tuple, list)) and len(value) == 2:
            return {"paths": value[0], "style": value[1]}
        return value

    @field_validator("paths")
    @classmethod
    def _check_paths(cls, values: Sequence[str]) -> tuple[str, ...]:
        return tuple(check_path(value) for value in values)

    @cached_property
    def patterns(self) -> tuple[PathPattern, ...]:
        """The compiled paths."""
        return tuple(PathPattern(path) for path in self.paths)
