"""Endpoints: what a request asks for, by method and route template."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from ratelimit.config.path_pattern import PathPattern
from ratelimit.config.policies import Limit

UNMATCHED: Final = "*"
"""The template of every path that no route matches."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A method and a route template, with the limits that decorators declared there; compared by identity.

    `host` is the template of the `Host` route above it, if any. `matched_patterns` are the patterns of the settings that
    match a path which no route matches, or a route for any path below it: the first of them names the endpoint, and
    policies that have any of them apply. `full_template` is the template in the whole app, where this endpoint lies in a mounted one. HEAD is GET here.
    """

    method: str = "GET"
    template: str = UNMATCHED
    host: str = ""
    matched_patterns: tuple[str, ...] = ()
    full_template: str = ""
    limits: tuple[Limit, ...] = ()
    exempt: bool = False

    @cached_property
    def label(self) -> str:
        """The name of the endpoint in counters and messages: `POST /v1/agents/{id}`, or `*` for all unknown paths."""
        name = self.full_template or self.host + (self.matched_patterns or (self.template,))[0]
        return UNMATCHED if name == UNMATCHED else f"{self.method} {name}"

    def fits(self, pattern: PathPattern) -> bool:
        """Say whether a path pattern of the settings means this endpoint, with or without its host or mount."""
        if self.matched_patterns and self.template == UNMATCHED:
            return pattern.text in self.matched_patterns
        names = {self.template, self.host + self.template, self.full_template} - {""}
        return pattern.text in self.matched_patterns or any(pattern.matches(name) for name in names)
