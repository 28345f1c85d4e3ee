"""The promise: every command does what its page says, on a real Redis, with JSON of a fixed shape and exit codes.

It tests `__main__`, `cli.main`, `cli.options`, `cli.output`, `cli.target`, `cli.commands.checking`, `cli.commands.controls`,
`cli.commands.doctoring`, `cli.commands.explaining`, `cli.commands.exporting`, `cli.commands.fleet`, `cli.commands.looking`,
`cli.commands.serving` and `cli.commands.settings`.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

import examples
from ratelimit import Identity, Limiter, RateLimitSettings
from ratelimit.cli.main import cli
from ratelimit.telemetry import __file__ as telemetry

SETTINGS = """
store = "{url}"
store_timeout = 5
exempt = ["GET /healthz"]

[[limits]]
name = "token"
rate = "600/minute"
per = ["token"]
burst = 0.25

[[limits]]
name = "org"
rate = "3/minute"
per = ["org"]
plans = {{ business = "30/minute", enterprise = "unlimited" }}

[[limits]]
name = "export"
rate = "1/hour"
per = ["endpoint", "org"]
paths = ["/api/exports/full"]
shadow = true

[[quotas]]
name = "requests"
limit = 1000
period = "month"
per = ["org"]
"""

APP = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings

def identify(connection):
    return Identity(token=connection.headers.get("x-token"), org="acme")

async def agent(request):
    return PlainTextResponse("")

settings = RateLimitSettings.from_file({path!r})
app = Starlette(routes=[Route("/v1/agents/{{id}}", agent), Route("/healthz", agent)],
                middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=identify)])

def make():
    return app
"""

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path, redis_url: str) -> str:
    path = tmp_path / "limits.toml"
    path.write_text(SETTINGS.format(url=redis_url))
    return str(path)


@pytest.fixture
def ratelimit(config: str) -> Run:
    """Return what runs a command; with `raises` nothing, its exit code must be 0."""

    def run(*arguments: str, code: int = 0, settings: str | None = config) -> Result:
        environment = {"COLUMNS": "80", "RATELIMIT_CONFIG": settings, "USER": "ada", "LOGNAME": "ada"}
        result = CliRunner().invoke(cli, arguments, env=environment)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def app(tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "cliapp.py").write_text(APP.format(path=config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "cliapp:app"
    sys.modules.pop("cliapp", None)


def in_the_app(config: str, work: Callable[[Limiter], Coroutine[Any, Any, Any]]) -> Any:
    """Do something with a limiter as the app has it."""

    async def run() -> Any:
        async with Limiter(RateLimitSettings.from_file(config)) as limiter:
            return await work(limiter)

    return asyncio.run(run())


def charge(config: str, times: int) -> None:
    async def work(limiter: Limiter) -> None:
        for _ in range(times):
            await limiter.check(Identity(token="tk", org="acme"), endpoint="/v1/agents/{id}")

    in_the_app(config, work)


def test_explain_says_why_a_caller_is_refused(ratelimit: Run, config: str) -> None:
    """At 80 columns, and as JSON; nothing is charged."""
    charge(config, 3)
    for _ in range(2):
        shown = ratelimit("explain", "get", "/v1/agents/{id}", "--token", "tk", "--org", "acme").output
        assert "refused: 429 by org, retry after " in shown
        assert max(map(len, shown.split("\n\n")[1].splitlines())) <= 80
        assert '"code":"rate_limit_exceeded"' in shown
    asked = ("explain", "GET", "/x", "--token", "tk", "--org", "acme", "--plan", "business", "--json")
    found = json.loads(ratelimit(*asked).stdout)
    assert (found["allowed"], found["status"], found["retry_after"], found["binding"]) == (True, 200, 0.0, "org")
    policies = {each["policy"]: each for each in found["policies"]}
    assert (policies["org"]["rate"], policies["org"]["used"], policies["org"]["remaining"]) == ("30/minute", 3, 26)
    assert [step["source"] for step in policies["org"]["chain"]] == ["plan", "rate"]
    assert policies["export"]["why_not"] == "its paths do not include GET /x"
    assert policies["requests"]["rate"] == "1000/month"
    assert found["headers"]["x-ratelimit-remaining"] == "26"
    assert found["body"] is None


def test_an_app_brings_its_decorators_and_an_address_is_named_as_clients_are(
    ratelimit: Run, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their policies can be overridden, switched and reset; an IPv6 address means its network of 64 bits."""
    (tmp_path / "decorated.py").write_text(
        "from fastapi import FastAPI\nfrom ratelimit import RateLimitMiddleware, RateLimitSettings, limit\napp = FastAPI()\n"
        f"app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings.from_file({config!r}))\n"
        "@app.get('/search')\n@limit('5/minute', per='ip', name='search')\ndef search(): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ("--app", "decorated:app")
    assert "in shadow" in ratelimit("shadow", "on", "--policy", "search", *options, settings=None).output
    asked = ("explain", "GET", "/search", "--ip", "2001:db8::5", *options, "--json")
    found = json.loads(ratelimit(*asked, settings=None).stdout)
    assert found["policies"][-1]["shadow"]
    blocked = ratelimit("block", "set", "--key", "ip=2001:db8::5")
    assert "blocked" in blocked.output
    assert json.loads(ratelimit(*asked, settings=None).stdout)["status"] == 403
    sys.modules.pop("decorated")
    (tmp_path / "failing.py").write_text("raise RuntimeError('no DATABASE_URL')")
    assert "RuntimeError: no DATABASE_URL" in ratelimit("show", "--app", "failing:app", code=2, settings=None).output


def test_explain_finds_the_routes_of_an_app(ratelimit: Run, app: str) -> None:
    """By its own routing; a grant and a dimension are handed in."""
    asked = ("explain", "GET", "/v1/agents/7", "--app", app, "--token", "tk", "--grant", "token=7/minute", "--json")
    found = json.loads(ratelimit(*asked, settings=None).stdout)
    assert (found["endpoint"], found["headers"]["x-ratelimit-limit"]) == ("GET /v1/agents/{id}", "7")
    exempt = ratelimit("explain", "GET", "/healthz", "--app", "cliapp:make", settings=None).output
    assert "the endpoint is exempt" in exempt
    assert "admitted: no limit applies" in exempt


def test_a_customer_is_raised_and_the_app_feels_it(ratelimit: Run, config: str) -> None:
    """Set, listed and deleted: for a caller, a plan and everybody; a dry run writes nothing."""
    one = ("--policy", "org", "--key", "org=acme")
    assert (
        "would be 9/minute for org=acme" in ratelimit("override", "set", *one, "--rate", "9/minute", "--dry-run").output
    )
    assert "no override holds" in ratelimit("override", "list").output
    said = ratelimit("override", "set", *one, "--rate", "9/minute", "--until", "2h", "--why", "ticket 7").output
    assert said.startswith("org is 9/minute for org=acme until ")
    assert "it was" not in said
    said = ratelimit("override", "set", *one, "--rate", "8/minute", "--dry-run").output
    assert "org would be 8/minute for org=acme (it was 9/minute until " in said
    ratelimit("override", "set", "--policy", "requests", "--plan", "trial", "--rate", "50")
    ratelimit("override", "set", "--policy", "token", "--everybody", "--rate", "unlimited")
    rows = json.loads(ratelimit("override", "list", "--json").stdout)["overrides"]
    assert [(row["policy"], row["key"], row["plan"], row["rate"], row["by"], row["why"]) for row in rows] == [
        ("org", {"org": "acme"}, None, "9/minute", "ada", "ticket 7"),
        ("requests", {}, "trial", "50", "ada", None),
        ("token", {}, None, "unlimited", "ada", None),
    ]
    assert "everybody" in ratelimit("override", "list").output

    async def limits(limiter: Limiter) -> Any:
        return {limit.policy: limit.limit for limit in await limiter.limits(Identity(token="t", org="acme"))}

    assert in_the_app(config, limits) == {"org": 9, "requests": 1000}
    assert "is removed" in ratelimit("override", "delete", *one).output
    assert "there was none" in ratelimit("override", "delete", *one).output


def test_callers_are_blocked_and_allowed(ratelimit: Run, config: str) -> None:
    """Each list by itself; the app follows."""
    ratelimit("block", "set", "--key", "org=evil", "--until", "2099-01-01T00:00Z", "--why", "abuse")
    ratelimit("allow", "set", "--key", "token=loadtest")
    assert "org=evil" in ratelimit("block", "list").output
    short = ratelimit("block", "set", "--key", "token_hash=9676b23a", code=2).output
    assert "is not a whole hash" in " ".join(short.split())
    (row,) = json.loads(ratelimit("allow", "list", "--json").stdout)["callers"]
    assert list(row["key"]) == ["token_hash"]

    async def decisions(limiter: Limiter) -> Any:
        callers = Identity(org="evil"), Identity(token="loadtest", org="acme")
        found = [await limiter.check(caller) for caller in callers for _ in range(5)]
        return [decision.is_blocked for decision in found], [decision.allowed for decision in found]

    assert in_the_app(config, decisions) == ([True] * 5 + [False] * 5, [False] * 5 + [True] * 5)
    assert "blocked" in ratelimit("explain", "GET", "/x", "--org", "evil").output
    assert "the caller is allowed whatever it does" in ratelimit("explain", "GET", "/x", "--token", "loadtest").output
    assert "removed" in ratelimit("block", "delete", "--key", "org=evil").output
    assert "there is none" in ratelimit("block", "list").output
    assert (
        "ip=192.0.2.0/24: would be allowed" in ratelimit("allow", "set", "--key", "ip=192.0.2.0/24", "--dry-run").output
    )


def test_the_fleet_is_put_into_shadow_and_paused(ratelimit: Run, config: str) -> None:
    """And enforced again; the trail knows who did it."""
    charge(config, 3)
    assert "org: in shadow until" in ratelimit("shadow", "on", "--policy", "org", "--until", "1h").output
    assert "shadow; rate 3/minute" in ratelimit("explain", "GET", "/x", "--org", "acme").output
    ratelimit("pause", "--until", "30m", "--why", "incident 4")
    rows = json.loads(ratelimit("switches", "--json").stdout)["switches"]
    assert [(row["policy"], row["mode"], row["why"]) for row in rows] == [
        (None, "paused", "incident 4"),
        ("org", "shadow", None),
    ]
    assert "it is paused until" in ratelimit("explain", "GET", "/x", "--token", "t").output
    assert "all policies: enforced again" in ratelimit("resume").output
    assert "org: enforced again" in ratelimit("shadow", "off", "--policy", "org").output
    assert "no switch was set" in ratelimit("resume").output
    assert "all policies are enforced" in ratelimit("switches").output
    changes = json.loads(ratelimit("audit", "--json", "--last", "2").stdout)["changes"]
    assert [(each["action"], each["by"], each["entry"]) for each in changes] == [
        ("delete", "ada", "!switch:shadow:org"),
        ("delete", "ada", "!switch:paused:*"),
    ]
    assert "incident 4" in ratelimit("audit").output


def test_usage_and_reset(ratelimit: Run, config: str) -> None:
    """What a caller has used, and emptied."""
    charge(config, 2)
    caller = ("--token", "tk", "--org", "acme")
    found = json.loads(ratelimit("usage", *caller, "--json").stdout)
    assert {each["policy"]: each["limit"] - each["remaining"] for each in found["limits"]} == {"token": 2, "org": 2}
    assert [(each["policy"], each["used"]) for each in found["quotas"]] == [("requests", 2)]
    assert "requests  month" in ratelimit("usage", *caller).output
    assert "name it too (--org)" in " ".join(ratelimit("usage", "--token", "tk").output.split())
    assert "say whom" in ratelimit("reset", code=2).output
    ratelimit("block", "set", "--key", "org=acme")
    ratelimit("pause", "--policy", "token", "--until", "1m")
    shown = ratelimit("usage", *caller).output
    assert "the caller is blocked" in shown
    assert "token is paused" in shown
    ratelimit("block", "delete", "--key", "org=acme")
    ratelimit("resume", "--policy", "token")
    assert "would empty" in ratelimit("reset", *caller, "--dry-run").output
    assert "emptied 3 counters of token#" in ratelimit("reset", *caller, "--why", "goodwill").output
    assert json.loads(ratelimit("usage", *caller, "--json").stdout)["quotas"][0]["used"] == 0
    at_an_endpoint = ratelimit("usage", *caller, "--endpoint", "/api/exports/full", "--json").output
    assert "export" in at_an_endpoint


def test_top_and_tail_show_who_is_refused(ratelimit: Run, config: str, tmp_path: Path) -> None:
    """Where the app counts; else they say what is missing."""
    assert "statistics = true" in ratelimit("top", code=2).output
    counting = tmp_path / "counting.toml"
    counting.write_text("statistics = true\n" + Path(config).read_text())
    options = ("--config", str(counting))
    charge(str(counting), 5)
    (caller,) = json.loads(ratelimit("top", *options, "--json").stdout)["callers"]
    assert caller == {"policy": "org", "caller": "org:acme", "count": 2}
    shown = ratelimit("top", *options, "--by", "used", "--last", "15m", "--policy", "token").output
    assert shown.splitlines()[0].split() == ["POLICY", "CALLER", "USED"]
    assert "none in that time" in ratelimit("top", *options, "--policy", "export").output
    assert "no duration" in ratelimit("top", *options, "--last", "soon", code=2).output
    lines = ratelimit("tail", *options, "--no-follow").output.splitlines()
    assert len(lines) == 2
    assert " 429    org org:acme (token#" in lines[0]
    assert "GET /v1/agents/{id} wait" in lines[0]
    assert ratelimit("tail", *options, "--no-follow", "--shadow").output == ""
    one = json.loads(ratelimit("tail", *options, "--no-follow", "--json", "--last", "1").stdout)
    assert (one["policy"], one["status"], one["shadow"]) == ("org", 429, False)
    command = [sys.executable, "-m", "ratelimit", "tail", *options, "--last", "0", "--policy", "org"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(100):  # The command may begin a little later.
            charge(str(counting), 1)
            if select.select([process.stdout], [], [], 0.2)[0]:
                break
        assert " org org:acme (token#" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_check_and_diff_look_at_files(ratelimit: Run, config: str, tmp_path: Path, app: str) -> None:
    """Exit code 1 from warnings up; codes can be ignored."""
    found = json.loads(ratelimit("check", config, "--json").stdout)["problems"]
    assert {each["severity"] for each in found} == {"info"}
    assert "info" in ratelimit("check", config).output
    bad = tmp_path / "bad.toml"
    bad.write_text(Path(config).read_text().replace("600/minute", "600/fortnight"))
    (problem,) = json.loads(ratelimit("check", str(bad), "--json", code=1).stdout)["problems"]
    assert (problem["code"], problem["severity"], problem["line"]) == ("RL106", "error", 8)
    assert problem["place"] == f"{bad}:8: limits.0.rate"
    assert "RL106" in ratelimit("check", str(bad), code=1).output.replace("\n", "")
    ratelimit("check", str(bad), "--ignore", "RL106")
    with_app = json.loads(ratelimit("check", "--app", app, "--json", code=1).stdout)["problems"]
    assert [each["code"] for each in with_app if each["severity"] == "warning"] == ["RL605"]
    (tmp_path / "bare.py").write_text(
        "from fastapi import FastAPI\nfrom ratelimit import limit\napp = FastAPI()\n"
        "@app.get('/x')\n@limit('5/minute', per='ip')\ndef x(): ...\n"
    )
    bare = json.loads(ratelimit("check", "--app", "bare:app", "--json", code=1).stdout)["problems"]
    assert [(each["code"], each["severity"]) for each in bare] == [("RL614", "error")]
    sys.modules.pop("bare")
    new = tmp_path / "new.toml"
    new.write_text(Path(config).read_text().replace("3/minute", "4/minute").replace("1/hour", "1/day"))
    ratelimit("override", "set", "--policy", "org", "--plan", "business", "--rate", "5/minute")
    store = RateLimitSettings.from_file(config).store
    found = json.loads(ratelimit("diff", config, str(new), "--json", "--store", store, code=1).stdout)
    assert {each["policy"]: each["counters"] for each in found["policies"]} == {
        "token": "go on",
        "org": "go on",
        "export": "go on",
        "requests": "go on",
    }
    assert found["overrides"] == [{"policy": "org", "key": {}, "plan": "business", "rate": "5/minute"}]
    shown = ratelimit("diff", config, str(new), "--store", store, code=1).output
    assert "rate: 3/minute → 4/minute" in shown
    assert "no policy changes" in ratelimit("diff", config, config).output


def test_show_and_export(ratelimit: Run, config: str, tmp_path: Path) -> None:
    """Tables that fit, and files as they are."""
    shown = ratelimit("show").output
    assert max(map(len, shown.splitlines())) <= 80
    assert "business 30/minute" in shown
    assert "exempt: GET /healthz" in shown
    wide = CliRunner().invoke(cli, ["show", "--config", config], env={"COLUMNS": "160"}).output
    assert wide.split()[:10] == [
        "NAME",
        "KIND",
        "RATE",
        "PER",
        "BURST",
        "PLANS",
        "SCOPE",
        "WHERE",
        "SHADOW",
        "ON-FAILURE",
    ]
    policies = json.loads(ratelimit("show", "--json").stdout)["policies"]
    assert policies[1]["plans"] == {"business": "30/minute", "enterprise": "unlimited"}
    assert json.loads(ratelimit("export", "grafana").stdout) == json.loads(
        (Path(telemetry).parent / "grafana.json").read_text()
    )
    target = tmp_path / "alerts.yaml"
    ratelimit("export", "alerts", "--output", str(target))
    assert target.read_text() == (Path(telemetry).parent / "alerts.yaml").read_text().rstrip("\n") + "\n"
    assert json.loads(ratelimit("export", "schema").stdout)["properties"]["limits"]
    assert "openapi needs the app" in ratelimit("export", "openapi", code=2).output
    document = ratelimit("export", "openapi", "--app", "examples.server.saas:app", settings=None).output
    assert '"429"' in document


def test_doctor_looks_at_the_server(ratelimit: Run, config: str) -> None:
    """Fine, and with findings."""
    charge(config, 1)
    checks = json.loads(ratelimit("doctor", "--json").stdout)["checks"]
    assert {check["severity"] for check in checks} <= {"ok", "info"}
    assert "round trip" in ratelimit("doctor").output
    assert "RL909" not in ratelimit("doctor", "--ignore", "RL909").output


def test_wrong_usage_and_a_store_that_is_away(ratelimit: Run, tmp_path: Path, config: str) -> None:
    """Exit code 2 names what is wrong, exit code 3 is the store's."""
    for arguments, message in [
        (("show", "--config", "nowhere.toml"), "nowhere.toml"),
        (("show", "--config", "tests.support.shop:nothing"), "has no attribute 'nothing'"),
        (("show", "--config", ":x"), "is not module:object"),
        (("show", "--config", "json:dumps"), "and not RateLimitSettings"),
        (("override", "set", "--policy", "org", "--rate", "5/minute"), "say whom"),
        (("override", "set", "--policy", "nope", "--everybody", "--rate", "5"), "'nope' is not one of"),
        (("override", "set", "--policy", "org", "--key", "org", "--rate", "5"), "--key: org is not NAME=VALUE"),
        (("pause",), "Missing option '--until'"),
        (("pause", "--until", "tomorrow"), "neither a duration"),
        (("pause", "--until", "2099-01-01T00:00"), "needs a time zone"),
        (("explain", "GET", "/x", "--dimension", "teamspace"), "--dimension: teamspace is not NAME=VALUE"),
        (("usage", "--store", "memory://"), "counts in its own memory"),
        (("nonsense",), "No such command"),
        (("pause", "--until", "9999999999d"), "neither a duration"),
        (("override", "set", "--policy", "org", "--everybody", "--rate", "²"), "is not a rate"),
        (("check", "nowhere.toml"), "there is no such file"),
        (("check", "--ignore", "RL6", config), "is no code"),
        (("explain", "FOO", "/x"), "is not an HTTP method"),
        (("explain", "GET", "x"), "must begin with '/'"),
        (("explain", "GET", "/x", "--dimension", "teamspace=1"), "is not one of"),
        (("export", "grafana", "-o", "/nowhere/x.json"), "No such file or directory"),
    ]:
        assert message in " ".join(ratelimit(*arguments, code=2).output.split()), arguments
    assert "name the settings" in ratelimit("show", code=2, settings=None).output
    away = ratelimit("usage", "--org", "acme", "--store", "redis://127.0.0.1:1", code=3)
    assert "the store is unavailable" in " ".join(away.output.split())
    broken = tmp_path / "broken.toml"
    broken.write_text('[[limits]]\nname = "a"\n')
    assert "limits.0.rate: Field required" in " ".join(
        ratelimit("show", "--config", str(broken), code=2).output.split()
    )


def test_it_is_a_program(config: str) -> None:
    """By `python -m ratelimit`, without colours where nobody sees them."""
    command = [sys.executable, "-m", "ratelimit", "show", "--config", config]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    assert "token" in done.stdout
    assert "\x1b[" not in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "ratelimit", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("ratelimit, version ")
    without = (
        "import sys; sys.modules['click'] = None; sys.argv = ['ratelimit']; from ratelimit.__main__ import main; main()"
    )
    failed = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert (failed.returncode, "pip install 'ratelimit-asgi[cli]'" in failed.stderr) == (2, True)


FILES = sorted(str(path) for path in Path(examples.__path__[0]).rglob("*.toml"))
EXAMPLES = ["three_layers", "per_endpoint", "saas", "quickstart", "overload"]


@pytest.mark.parametrize("file", FILES)
def test_no_settings_file_of_the_examples_has_a_warning(ratelimit: Run, file: str) -> None:
    """Notes they may have."""
    found = json.loads(ratelimit("check", file, "--json").stdout)["problems"]
    assert {each["severity"] for each in found} <= {"info"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_example_has_a_warning(ratelimit: Run, name: str) -> None:
    """Notes they may have."""
    found = json.loads(ratelimit("check", "--app", f"examples.server.{name}:app", "--json", settings=None).stdout)[
        "problems"
    ]
    assert {each["severity"] for each in found} <= {"info"}


@contextmanager
def served_console(config: str, *options: str) -> Iterator[str]:
    """Run `ratelimit console`, and yield the address that it prints."""
    command = [sys.executable, "-m", "ratelimit", "console", "--port", "0", "--config", config, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().partition(": ")[2].strip()
        finally:
            process.terminate()


def test_console_serves_whom_has_the_key(config: str) -> None:
    """The address that is printed leads to one without the key; without it, all is 403; changes are in the name of `--by`."""
    charge(config, 2)
    with served_console(config, "--by", "ada") as address, httpx2.Client(follow_redirects=True) as browser:
        root = address.partition("?")[0]
        assert browser.get(root).status_code == 403
        assert browser.get(f"{root}?key=wrong").status_code == 403
        page = browser.get(address)
        assert (str(page.url), page.status_code) == (root, 200)
        assert "key=" not in page.text
        assert "token" in page.text
        assert "<b>2</b> of 3 used" in browser.get(f"{root}caller?org=acme").text
        fields = {"csrf": str(browser.cookies.get("ratelimit_csrf")), "key.org": "evil", "why": "x", "back": ""}
        done = browser.post(f"{root}change/block-set", data=fields, headers={"sec-fetch-site": "same-origin"})
        assert "org=evil is blocked" in done.text
        assert "--by ada" in done.text
    with served_console(config, "--read-only") as address, httpx2.Client(follow_redirects=True) as browser:
        assert "read-only" in browser.get(address).text


def test_console_needs_a_shared_store(ratelimit: Run, tmp_path: Path) -> None:
    """The counters of an app's memory are not seen; a store that does not answer is said."""
    file = tmp_path / "memory.toml"
    file.write_text('[[limits]]\nname = "a"\nrate = "5/minute"\nper = ["org"]\n')
    assert "RL803" in ratelimit("console", "--config", str(file), code=2).output
    assert "unavailable" in ratelimit("console", "--store", "redis://127.0.0.1:1", code=3).output


def test_a_caller_may_be_named_by_the_hash_of_its_token(ratelimit: Run, config: str) -> None:
    """As `top` and the console show it; not with the token, and not by a part of it."""
    charge(config, 2)
    hashed = Limiter(RateLimitSettings.from_file(config)).resolver.named.hashed("tk")
    shown = [
        ratelimit("usage", *who, "--org", "acme", "--json").stdout
        for who in (("--token", "tk"), ("--token-hash", hashed))
    ]
    limits = [[(each["policy"], each["remaining"]) for each in json.loads(each)["limits"]] for each in shown]
    assert limits[0] == limits[1]
    assert ("token", 598) in limits[0]
    assert "not a whole hash" in ratelimit("usage", "--token-hash", hashed[:8], code=2).output
    assert "give one of them" in ratelimit("usage", "--token-hash", hashed, "--token", "tk", code=2).output
