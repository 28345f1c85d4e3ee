"""Changes are read in a line; `tests/behaviour/test_command_line.py` has those that commands make."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ratelimit.controls.audit_trail import Change
from ratelimit.controls.change_text import change_text


@pytest.mark.parametrize(
    ("action", "entry", "values", "text"),
    [
        (
            "set",
            "org:acme",
            {"policy": "org", "key": {"org": "acme"}, "rate": [600, 60]},
            "org 600/minute for org=acme",
        ),
        ("set", "org:=plan", {"policy": "org", "plan": "pro", "rate": 5}, "org 5 for plan pro"),
        ("set", "org:=all", {"policy": "org", "rate": "unlimited"}, "org unlimited for everybody"),
        ("set", "!block:ip", {"key": {"ip": "192.0.2.7"}}, "block ip=192.0.2.7"),
        ("set", "!switch:paused:*", {"mode": "paused"}, "paused all policies"),
        ("delete", "!block:ip", {}, "delete block:ip"),
        ("reset", "counters", {"caller": "org:acme"}, "reset all of org:acme"),
    ],
)
def test_each_kind(action: str, entry: str, values: dict[str, Any], text: str) -> None:
    """With whom it is for."""
    change = Change(at=datetime.now(UTC), action=action, entry=entry, values=values)
    assert change_text(change) == text
