"""The promise: the runbook leads from the alert to the raised customer, and README and pages show what commands really print."""

import asyncio
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratelimit import Identity, Limiter, RateLimitSettings
from ratelimit.cli.main import cli

ROOT = Path(__file__).parent.parent.parent
RUNBOOK = (ROOT / "docs" / "incident.md").read_text()
STEPS = re.findall(r"```console\n\$ ratelimit (.+)\n([\s\S]*?)```", RUNBOOK)

SETTINGS = """
store = "{url}"
store_timeout = 5
statistics = true

[[limits]]
name = "token"
rate = "600/minute"
per = ["token"]
burst = 0.25

[[limits]]
name = "org"
rate = "6/minute"
per = ["org"]
plans = {{ business = "30/minute" }}

[[quotas]]
name = "requests"
limit = 1_000_000
period = "month"
per = ["org"]
"""


@pytest.fixture
def config(tmp_path: Path, redis_url: str) -> str:
    path = tmp_path / "limits.toml"
    path.write_text(SETTINGS.format(url=redis_url))
    return str(path)


def ask(config: str, times: int) -> list[bool]:
    """Let the customer send requests, and return which are served."""

    async def run() -> list[bool]:
        async with Limiter(RateLimitSettings.from_file(config)) as limiter:
            caller = Identity(token="tk_1", org="acme")
            return [(await limiter.check(caller, method="POST", endpoint="/v1/orders")).allowed for _ in range(times)]

    return asyncio.run(run())


def printed(command: str, config: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, shlex.split(command), env={"RATELIMIT_CONFIG": config, "COLUMNS": "100"})
    assert result.exit_code == code, result.output
    return result.output


def comparable(output: str) -> list[str]:
    """Return lines without what depends on the time: waits, instants, and the widths of columns."""
    timeless = re.sub(
        r"\d+ s\b", "N s", re.sub(r"\d\d(?:-\d\d-\d\d )?:?\d\d:\d\d(?: UTC)?|\d{4}-\S+ \S+ UTC", "…", output)
    )
    return [" ".join(line.split()) for line in timeless.strip().splitlines()]


def test_the_runbook_raises_the_customer(config: str) -> None:
    """In five commands, whose output is that of the page; afterwards its requests are served."""
    assert len(STEPS) == 5
    assert ask(config, 9) == [True] * 6 + [False] * 3
    for command, shown in STEPS:
        expected = comparable(shown)
        assert comparable(printed(command, config))[: len(expected)] == expected, command
    assert ask(config, 40) == [True] * 40


def test_the_readme_shows_what_explain_prints(config: str) -> None:
    """Line by line, but for the wait; so does the page of the command line."""
    ask(config, 9)
    for page in ("README.md", "docs/command-line.md"):
        shown = re.search(r"\$ (ratelimit explain .+)\n([\s\S]*?)```", (ROOT / page).read_text())
        assert shown is not None
        expected = comparable(shown[2])
        real = comparable(printed(shown[1].removeprefix("ratelimit "), config))
        assert real[: len(expected)] == expected


def test_every_command_has_a_section() -> None:
    """And every section is that of a command."""
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert set(re.findall(r"^## (.+)$", page, re.MULTILINE)) == set(cli.commands)


def test_the_shapes_of_json_are_those_of_the_page(config: str) -> None:
    """The fixed ones: `explain` and `check`."""
    found = json.loads(printed("explain GET /x --json", config))
    fixed = {"allowed", "status", "retry_after", "binding", "policies", "headers", "body"}
    assert fixed <= found.keys()
    wanted = {"policy", "applies", "why_not", "rate", "chain", "used", "remaining", "wait"}
    assert all(wanted <= policy.keys() for policy in found["policies"])
    problem, _ = json.loads(printed(f"check {config} --json", config, code=1))["problems"]
    assert {"code", "severity", "place", "message"} <= problem.keys()
