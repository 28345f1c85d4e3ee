"""The promise: a replay of a server's own access log decides as the server has decided, and says what it cannot know."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from ratelimit import RateLimitSettings
from ratelimit.cli.main import cli
from ratelimit.rehearsal.access_log import AccessLog
from ratelimit.rehearsal.callers import CallerFields, LogCallers
from ratelimit.rehearsal.replay import Replay
from tests.support import logged_app
from tests.support.ports import free_port
from tests.support.uvicorn_server import wait_for

REQUESTS: Final = int(os.environ.get("REHEARSE", "4000"))
"""Requests that a real server is driven with; REHEARSE=20000 for the whole of it."""

SETTINGS: Final[dict[str, Any]] = {
    "limits": [
        {"name": "token", "rate": "40/second", "per": "token", "burst": 0.25},
        {"name": "org", "rate": "3000/minute", "per": "org", "plans": {"pro": "9000/minute", "free": "150/minute"}},
        {"name": "endpoint", "rate": "90/2 seconds", "per": ["endpoint", "token"], "refund_on": [500]},
        {"name": "canary", "rate": "5/second", "per": "org", "shadow": True},
    ],
    "quotas": [{"name": "requests", "limit": 220, "period": "day", "per": "org", "refund_on": [404]}],
    "concurrency": [{"name": "at-once", "limit": 2, "per": "token", "paths": "/v1/batches", "methods": "POST"}],
}


def headers_of(chance: random.Random) -> tuple[str, str, dict[str, str]]:
    """Return method, path and headers of a random request."""
    org = chance.randrange(6)
    headers = {
        "x-token": f"tk_{org}_{min(chance.randrange(8), chance.randrange(8))}",
        "x-org": f"org_{org}",
        "x-status": chance.choice(["200", "200", "200", "500", "404"]),
        "x-plan": ("pro", "free", "")[org % 3],
    }
    what = chance.random()
    if what < 0.2:
        return "POST", "/v1/batches", {**headers, "x-takes": f"{0.05 + chance.random() * 0.15:.4f}"}
    return ("GET", f"/v1/agents/{chance.randrange(50)}", headers) if what < 0.7 else ("GET", "/v1/runs", headers)


async def drive(port: int, requests: int) -> None:
    """Send requests over 24 connections at once."""
    numbers, chance = iter(range(requests)), random.Random(5)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in numbers:
            method, path, headers = headers_of(chance)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n{lines}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(24)))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drive a real server, and return its access log."""
    path, port = tmp_path_factory.mktemp("log") / "access.log", free_port()
    given = json.dumps({"settings": SETTINGS, "path": str(path)})
    command = [sys.executable, "-m", "uvicorn", "tests.support.logged_app:app", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "warning"], env={**os.environ, "LOGGED": given}) as process:
        wait_for(process, f"http://127.0.0.1:{port}")
        asyncio.run(drive(port, REQUESTS))
        process.terminate()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["path"] != "/none"))
    return path


ALIASES: Final = {"time": "start_time", "duration": "duration_s"}
FIELDS: Final = CallerFields(token="token", org="org", plan="plan", ip=None)


def rewritten(log: Path, path: Path, *, whole_seconds: bool = False) -> list[dict[str, Any]]:
    """Write the log with durations in seconds (and with whole seconds), and return its lines."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        line["request_time"] = f"{line['duration_us'] / 1e6:.6f}"
        if whole_seconds:
            line["time"] = str((int(line.pop("start_time")) + line["duration_us"]) // 1_000_000)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def replayed(path: Path, *, at_once: bool = False) -> tuple[Replay, AccessLog, dict[str, bool]]:
    """Replay a log under the settings of the server, and return what is refused, by the start of each request."""
    replay = Replay(RateLimitSettings.model_validate(SETTINGS), LogCallers(FIELDS), app=logged_app.plain)
    log = AccessLog([str(path)], format_name="json", at_once=at_once)
    return (
        replay,
        log,
        {record.fields.get("start_time", ""): outcome.is_refused for record, outcome in replay.outcomes(log)},
    )


def test_a_server_and_the_replay_of_its_log_agree_decision_for_decision(log: Path, tmp_path: Path) -> None:
    """Windows, burst, plans, a quota, permits and refunds, at microseconds."""
    lines = rewritten(log, tmp_path / "access.log")
    replay, read, decided = replayed(tmp_path / "access.log")
    real = {line["start_time"]: line["refused"] for line in lines}
    assert len(lines) == len(real) == REQUESTS
    assert {at for at, refused in real.items() if refused != decided[at]} == set()
    assert min(replay.tally.refused, REQUESTS - replay.tally.refused) > 0.02 * REQUESTS
    assert {name for name, each in replay.tally.policies.items() if each.refused} >= {
        "token",
        "org",
        "requests",
        "at-once",
    }
    assert replay.tally.policies["canary"].shadow
    assert (read.counts.unreadable, read.counts.late, replay.not_rehearsed) == (0, 0, [])


def test_with_whole_seconds_the_span_holds_the_truth(log: Path, tmp_path: Path) -> None:
    """The number of refusals lies between that of requests spread evenly and that of all at once."""
    lines = rewritten(log, tmp_path / "access.log", whole_seconds=True)
    path = str(tmp_path / "access.log")
    config = tmp_path / "limits.json"
    config.write_text("")
    refused = sum(line["refused"] for line in lines)
    evenly, at_once = (replayed(Path(path), at_once=at_once)[0].tally.refused for at_once in (False, True))
    assert evenly - 0.02 * REQUESTS <= refused <= at_once + 0.02 * REQUESTS
    assert evenly <= at_once


LIMITS = '[[limits]]\nname = "ip"\nrate = "3/minute"\nper = ["ip"]\n'


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_lines_of_real_servers_are_read(server: str, tmp_path: Path) -> None:
    """Uvicorn's with a time before them, as its log configuration adds it, and gunicorn's as they are."""
    config = tmp_path / "limits.toml"
    config.write_text(LIMITS)
    text = real_lines(server, tmp_path)
    (tmp_path / "access.log").write_text(text)
    result = run("replay", str(tmp_path / "access.log"), "--config", str(config), "--json")
    found = json.loads(result.stdout)
    assert (found["requests"], found["refused"], found["unreadable"]) == (5, 2, 0)
    assert found["routes"] == [] or found["routes"][0]["route"] == "*"


def test_lines_without_a_time_are_said_to_lack_it(tmp_path: Path) -> None:
    """As uvicorn writes them by default."""
    config, log = tmp_path / "limits.toml", tmp_path / "access.log"
    config.write_text(LIMITS)
    log.write_text('INFO:     127.0.0.1:52390 - "GET /x HTTP/1.1" 200 OK\n' * 3)
    found = json.loads(run("replay", str(log), "--config", str(config), "--json", code=2).stdout)
    assert "3 lines have no time" in " ".join(found["notes"])


def real_lines(server: str, folder: Path) -> str:
    """Return what a server has written for five requests."""
    import httpx  # noqa: PLC0415

    if server == "gunicorn":
        access, port = folder / "gunicorn.log", free_port()
        command = [sys.executable, "-m", "gunicorn", "wsgiref.simple_server:demo_app", "-b", f"127.0.0.1:{port}"]
        with subprocess.Popen([*command, "--access-logfile", str(access)]) as process:
            wait_for(process, f"http://127.0.0.1:{port}")
            for _ in range(5):
                httpx.get(f"http://127.0.0.1:{port}/rehearsed")
            process.terminate()
        return "".join(line for line in access.read_text().splitlines(keepends=True) if "/rehearsed" in line)
    access, port = folder / "uvicorn.log", free_port()
    formatter = {
        "()": "uvicorn.logging.AccessFormatter",
        "fmt": '%(asctime)s %(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
    }
    settings = folder / "log.json"
    settings.write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"access": formatter},
                "handlers": {
                    "access": {"class": "logging.FileHandler", "filename": str(access), "formatter": "access"}
                },
                "loggers": {"uvicorn.access": {"handlers": ["access"], "level": "INFO"}},
            }
        )
    )
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "tests.support.shop:app",
        "--port",
        str(port),
        "--log-config",
        str(settings),
    ]
    with subprocess.Popen(command) as process:
        wait_for(process, f"http://127.0.0.1:{port}")
        for _ in range(5):
            httpx.get(f"http://127.0.0.1:{port}/rehearsed")
        process.terminate()
    return "".join(line for line in access.read_text().splitlines(keepends=True) if "/rehearsed" in line)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "100"})
    assert result.exit_code == code, result.output
    return result


def combined(at: int, who: str, path: str = "/v1/x", status: int = 200) -> str:
    """Return a line of nginx for a request at this second of an hour."""
    return (
        f'{who} - - [20/Nov/2026:06:{at // 60:02}:{at % 60:02} +0000] "GET {path} HTTP/1.1" {status} 5 "-" "curl/8.5"\n'
    )


def test_what_cannot_be_known_is_named(tmp_path: Path) -> None:
    """No token, unknown routes, unreadable lines, lines out of order, a clock that jumps, durations and bodies that are not there."""
    config = tmp_path / "limits.toml"
    config.write_text(
        LIMITS
        + '[[limits]]\nname = "token"\nrate = "1/minute"\nper = ["token"]\n'
        + '[[limits]]\nname = "runs"\nrate = "1/minute"\nper = ["ip"]\npaths = ["/v1/runs"]\n'
        + '[[limits]]\nname = "named"\nrate = "1/minute"\nper = ["ip"]\nmanual = true\n'
        + '[[concurrency]]\nname = "at-once"\nlimit = 1\nper = ["ip"]\n'
    )
    order = [0, 4, 1, 9, 5, 11, 8]  # Up to five seconds out of order.
    lines = [combined(at, f"192.0.2.{at}") for at in order]
    lines += [
        "?\n",
        "\n",
        combined(3000, "192.0.2.200"),
        combined(2000, "192.0.2.201"),
        combined(2100, "192.0.2.203"),
        combined(2, "192.0.2.202"),
        '9.9.9.9 - - [x] "GET / HTTP/1.1" 200 5\n',
    ]
    lines += [combined(3001, "192.0.2.9", path=f"/v1/{n}") for n in range(400)]
    log = tmp_path / "access.log"
    log.write_text("".join(lines).replace("06:50:00", "09:50:00").replace("06:50:01", "09:50:01"))
    found = json.loads(run("replay", str(log), "--config", str(config), "--route", "/v1/x", "--json").stdout)
    assert found["requests"] == 411
    assert {each["policy"]: each["why"] for each in found["not_rehearsed"]} == {
        "token": "no request of the log has token",
        "runs": "no request of the log was for its endpoints",
        "named": "it is charged by its name alone",
        "at-once": "the log has no durations, so that no two requests are under way at once",
    }
    assert (found["unreadable"], found["late"], found["jumps"]) == (2, 1, 1)
    assert found["unreadable_lines"][0] == "?"
    notes = " ".join(found["notes"])
    for words in (
        "2 of 413 lines could not be read",
        "400 requests were for no route",
        "a minute late",
        "clock jumps",
        "whole seconds",
    ):
        assert words in notes


def test_a_budget_fails_a_run_with_a_table(tmp_path: Path) -> None:
    """Exit code 1, and Markdown that names policies, callers and routes; against the limits of today, flips count both ways."""
    new, old, log = tmp_path / "new.toml", tmp_path / "old.toml", tmp_path / "access.log"
    new.write_text(LIMITS)
    old.write_text(LIMITS.replace("3/minute", "5/minute").replace("\n", "\n", 1))
    log.write_text(
        "".join(combined(n, "192.0.2.1") for n in range(8)) + "".join(combined(9, f"10.0.0.{n}") for n in range(92))
    )
    report = tmp_path / "report.md"
    options = ("--config", str(new), "--against", str(old), "--route", "/v1/x", "--report", str(report))
    shown = run("replay", str(log), *options, "--max-newly-refused", "1%", code=1).output
    assert "budget of 1.00% newly refused: exceeded" in shown
    text = report.read_text()
    for words in (
        "**exceeded**",
        "| ip | 100 | 5 |",
        "| `192.0.2.1` | 8 | 5 | +2 −0 |",
        "| `GET /v1/x` | 100 | 5 |",
        "5 of 100 requests",
    ):
        assert words in text, words
    assert "kept" in run("replay", str(log), *options, "--max-newly-refused", "0.02").output
    swapped = ("--config", str(old), "--against", str(new), "--json")
    found = json.loads(run("replay", str(log), *swapped, "--max-newly-refused", "0").stdout)
    assert (found["refused"], found["newly_refused"], found["newly_admitted"]) == (3, 0, 2)
    page = tmp_path / "report.html"
    run("replay", str(log), "--config", str(new), "--report", str(page), "--span")
    assert "<svg" in page.read_text()
    assert "192.0.2.1" in page.read_text()
    run("replay", str(log), "--config", str(new), "--report", str(tmp_path / "x.pdf"), code=2)
    run("replay", str(log), "--config", str(new), "--max-newly-refused", "many", code=2)
    run("replay", str(tmp_path / "nowhere.log"), "--config", str(new), code=2)
    (tmp_path / "junk.log").write_text("".join(combined(n, "192.0.2.1") for n in range(9)) + "?\n")
    run("replay", str(tmp_path / "junk.log"), "--config", str(new), code=2)


def test_what_a_caller_writes_into_a_log_stays_text(tmp_path: Path) -> None:
    """No terminal is controlled by it, no table of a report broken; of IPv6, a network is one caller."""
    config, log, report = tmp_path / "limits.toml", tmp_path / "access.log", tmp_path / "report.md"
    config.write_text(LIMITS)
    evil = [
        f'{{"time": "{1795000000 + n}.5", "path": "/", "remote_addr": "\\u001b[2J|`<b>\\n# x"}}\n' for n in range(5)
    ]
    six = [f'{{"time": "{1795000010 + n}.5", "path": "/", "remote_addr": "2001:db8::{n}"}}\n' for n in range(5)]
    log.write_text("".join(evil + six))
    shown = run("replay", str(log), "--config", str(config), "--report", str(report)).output
    assert "\x1b" not in shown
    assert "2001:db8::/64" in shown
    rows = [line for line in report.read_text().splitlines() if "x1b" in line]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 7


def test_a_log_that_can_be_read_once_is_not_read_twice() -> None:
    """So `--span` is refused; a log that cannot be read ends a suggestion too, with what is the matter."""
    assert "stdin can be read once" in run("replay", "-", "--config", "x.toml", "--span", code=2).output
    text = "".join(combined(n, "192.0.2.1") for n in range(9)) + "?\n"
    result = CliRunner().invoke(cli, ["suggest", "-"], input=text)
    assert result.exit_code == 2
    assert "1 of 10 lines could not be read" in result.stdout
    assert "unreadable: ?" in result.stdout


def test_a_log_from_stdin_a_zipped_one_and_several(tmp_path: Path) -> None:
    """Merged by time."""
    import gzip  # noqa: PLC0415

    config = tmp_path / "limits.toml"
    config.write_text(LIMITS)
    text = "".join(combined(n, "192.0.2.1") for n in range(0, 8, 2))
    with gzip.open(tmp_path / "a.log.gz", "wt") as file:
        file.write("".join(combined(n, "192.0.2.1") for n in range(1, 8, 2)))
    result = CliRunner().invoke(
        cli, ["replay", "-", str(tmp_path / "a.log.gz"), "--config", str(config), "--json"], input=text
    )
    found = json.loads(result.stdout)
    assert (found["requests"], found["refused"], found["late"]) == (8, 5, 0)
    assert found["first"] == "2026-11-20 06:00:00 UTC"


def known_law(path: Path, callers: int, *, seed: int = 3, days: int = 3, spoil: float = 1.0) -> None:
    """Write a log of honest callers, of a Poisson process each, and of three abusers."""
    chance, lines = random.Random(seed), list[tuple[float, str]]()
    for caller in range(callers):
        rate = chance.lognormvariate(0, 0.5) * 3 / 60  # Three a minute, by and large.
        for day in range(days):
            at = day * 86_400 + chance.random() * 80_000
            ends, factor = at + 900, spoil if day == days - 1 else 1.0
            while at < ends:
                at += chance.expovariate(rate * factor)
                lines.append((at, f"tk_{caller}"))
    for abuser in range(3):
        for day in range(days):
            begin = day * 86_400 + 40_000 + 900 * abuser
            lines += [(begin + n / 20, f"abuser_{abuser}") for n in range(2000)]
    lines.sort()
    path.write_text(
        "".join(f'{{"time": "{1_795_000_000 + at:.3f}", "path": "/", "token": "{who}"}}\n' for at, who in lines)
    )


def suggestion(log: Path) -> dict[str, Any]:
    found = json.loads(
        run("suggest", str(log), "--format", "json", "--token", "token", "--per", "token", "--json").stdout
    )
    (one,) = found["suggestions"]
    return dict(one)


def test_suggested_limits_serve_the_honest_and_catch_the_abusers(tmp_path: Path) -> None:
    """At most 0.5 % of the honest callers are ever refused; the rehearsal of the suggested settings says the same."""
    log, config = tmp_path / "access.log", tmp_path / "limits.toml"
    known_law(log, 400)
    found = suggestion(log)
    assert set(found["outliers"]) == {f"abuser_{n}" for n in range(3)}
    assert found["confidence"] == "high", found["why"]
    config.write_text(found["toml"].replace("shadow = true", "shadow = false"))
    options = ("--config", str(config), "--format", "json", "--token", "token", "--json")
    replay = json.loads(run("replay", str(log), *options).stdout)
    refused = {each["caller"]: each["refused"] for each in replay["callers"]}
    honest = [caller for caller in refused if caller.startswith("tk_")]
    assert len(honest) <= 0.005 * 400 + 1
    assert all(refused[f"abuser_{n}"] > 3000 for n in range(3))
    assert "shadow = true" in found["toml"]
    assert "by token: " in run("suggest", str(log), "--format", "json", "--token", "token").output


@pytest.mark.parametrize(("callers", "spoil", "words"), [(14, 1.0, "only 14 callers"), (300, 6.0, "the days differ")])
def test_it_says_so_where_it_cannot_know(tmp_path: Path, callers: int, spoil: float, words: str) -> None:
    """Few callers, and days that differ."""
    log = tmp_path / "access.log"
    known_law(log, callers, spoil=spoil)
    found = suggestion(log)
    assert found["confidence"] == "low"
    assert words in " ".join(found["why"])
