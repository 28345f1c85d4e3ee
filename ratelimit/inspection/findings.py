"""Findings: what a check of settings has found, each with its code, its severity and its place."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "info"]

INFOS: Final = frozenset({"RL601", "RL610", "RL612", "RL615", "RL617", "RL619", "RL620"})
"""Lints that may well be meant."""

ERRORS: Final = frozenset({"RL204", "RL614"})
"""Lints of what has no effect at all, although someone has written it."""

_CODE: Final = re.compile(r"\[(RL\d{3})\]$")
_POLICY: Final = re.compile(r"\b(limit|quota|concurrency) (['\"])(.+?)\2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding: `place` is the file with its line and the field's path, as far as they are known."""

    code: str
    severity: Severity
    place: str
    message: str
    line: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON takes it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "place": self.place,
            "line": self.line,
            "message": self.message,
        }


def code_of(message: str, default: str) -> str:
    """Return the code at the end of a message, or the default for one of pydantic's own."""
    found = _CODE.search(message)
    return default if found is None else found[1]


def without_code(message: str) -> str:
    """Return a message without the code at its end."""
    return _CODE.sub("", message).rstrip()


def severity_of(code: str) -> Severity:
    """Return the severity of a lint."""
    return "info" if code in INFOS else "error" if code in ERRORS else "warning"


def policy_in(message: str) -> str | None:
    """Return the name of the policy that a message is about, where it names one."""
    found = _POLICY.search(message)
    return None if found is None else found[3]


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the highest severity among findings, or `None` for none."""
    seen = {finding.severity for finding in findings}
    order: Sequence[Severity] = ("error", "warning", "info")
    return next((severity for severity in order if severity in seen), None)
