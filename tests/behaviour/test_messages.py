"""The promise: every error, warning and finding has a code, and `docs/messages.md` a paragraph for each."""

import ast
import re
from pathlib import Path

import pytest

from ratelimit import ConfigurationError, Limit, Limiter, RateLimitSettings
from ratelimit.inspection.findings import ERRORS, INFOS

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "ratelimit").rglob("*.py"))
PAGE = (ROOT / "docs" / "messages.md").read_text()
PARAGRAPHS = dict(re.findall(r"^### (RL\d{3}): .+\n\n((?:.+\n)+)", PAGE, re.MULTILINE))

CODE = re.compile(r"\bRL\d{3}\b")
RAISED = {
    "ConfigurationError",
    "MissingMiddlewareError",
    "InvalidRate",
    "OverRelease",
    "LimitExceeded",
    "StoreError",
    "StoreUnavailable",
    "StorePartiallyUnavailable",
    "StoreTimeout",
    "ForeignValue",
    "invalid",
}
LOGGED = {"warning", "error", "exception", "warn_once", "_warn_once"}

PASSED_ON = {
    "str(error)",
    '"; ".join(problems)',
    "problem",
    '"\\n".join(f"{each.place}: {each.message} [{each.code}]" for each in findings)',
    "message",
    "warning",
    '"%s"',
    'f"rates.{name}: {error}"',
    "NO_IDENTIFY",
    "_NOT_ONE",
    "_CLOSED",
    "_UNEXPECTED",
    "_FAILED",
}
"""Messages that are made elsewhere, with their codes."""


def messages(path: Path) -> list[str]:
    """Return the source of each message that a file raises or logs."""
    source = path.read_text()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in RAISED | LOGGED:
                found.append(ast.get_source_segment(source, node.args[0]) or "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_message_ends_with_its_code(path: Path) -> None:
    """Also those of the command line."""
    for message in messages(path):
        assert message in PASSED_ON or re.search(r"\[RL\d{3}\]\W*$", message), message


def test_the_page_and_the_code_know_the_same_codes() -> None:
    """No paragraph is about nothing, and each says since when, how to put it right, and how to silence it."""
    used = {code for path in SOURCES for code in CODE.findall(path.read_text())}
    assert used - {"RL600"} == PARAGRAPHS.keys()
    assert list(PARAGRAPHS) == sorted(PARAGRAPHS)
    for code, text in PARAGRAPHS.items():
        words = " ".join(text.split())
        assert re.match(r"Since \d+\.\d+\.\d+\. \S", words), code
        assert "**Fix:** " in words, code
        assert "**Silence:** " in words, code
    assert PARAGRAPHS.keys() >= INFOS | ERRORS


def test_codes_reach_who_reads_the_message() -> None:
    """By exceptions, and by pydantic's own errors where a field is wrong."""
    with pytest.raises(ConfigurationError, match=r"policy: 'x' is not one of none \[RL303\]$"):
        Limiter(RateLimitSettings()).resolver.named.get("x")
    with pytest.raises(ValueError, match=r"limits\.0\.rate[\s\S]*\[RL106\]"):
        RateLimitSettings.model_validate({"limits": [{"name": "a", "rate": "many"}]})
    with pytest.raises(ValueError, match=r"\[RL107\]"):
        Limit(name="a", rate="0/minute")
