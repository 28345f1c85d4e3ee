"""Command lines are quoted for a shell; `tests/behaviour/test_console.py` runs them."""

import shlex
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.console.command_lines import command_line


def test_only_what_is_given_is_said() -> None:
    """In the words of the command line."""
    until = datetime(2031, 1, 31, tzinfo=UTC)
    assert command_line("override set", policy="org", plan="pro", rate=5, until=until) == (
        "ratelimit override set --policy org --plan pro --rate 5 --until 2031-01-31T00:00:00+00:00"
    )
    caller = {"token_hash": "1a", "org": "acme", "dimension.region": "eu"}
    assert command_line("reset", caller=caller) == "ratelimit reset --token-hash 1a --org acme --dimension region=eu"
    assert command_line("override delete", policy="org", everybody=True).endswith("--policy org --everybody")


@given(st.text(), st.text())
def test_no_text_leaves_its_quotes(value: str, why: str) -> None:
    """Whatever callers and operators write."""
    parts = shlex.split(command_line("block set", key={"org": value}, why=why))
    assert parts == ["ratelimit", "block", "set", "--key", f"org={value}", "--why", why]
