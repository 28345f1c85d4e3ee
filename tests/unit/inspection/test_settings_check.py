"""The check of settings: each planted mistake is found with its code and its line, and no example has a warning."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit import Limit, Quota, RateLimitSettings, limit
from ratelimit.inspection.findings import Finding
from ratelimit.inspection.settings_check import check_file, check_settings, check_unlimited_app, level_problem

GOOD = """# Line 1
store = "redis://localhost"
exempt = ["GET /healthz"]

[[limits]]
name = "token"  # line 6
rate = "600/minute"
per = ["token"]

[[limits]]
name = "org"  # line 11
rate = "6000/minute"
per = ["org"]
plans = { business = "30000/minute" }

[[quotas]]
name = "requests"  # line 17
limit = 1_000_000_000
period = "month"
per = ["org"]
"""


def planted(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


MISTAKES = {
    "not TOML": (planted('rate = "600/minute"', "rate = 600/minute"), "RL101", 7),
    "an unknown field": (planted("plans =", "plan ="), "RL103", 14),
    "a missing field": (planted('rate = "600/minute"\n', ""), "RL104", 5),
    "a wrong type": (planted("limit = 1_000_000_000", 'limit = "many"'), "RL105", 18),
    "no rate": (planted("600/minute", "600/fortnight"), "RL106", 7),
    "a rate of zero": (planted("6000/minute", "0/minute"), "RL107", 12),
    "a name twice": (planted('"org"  # line 11', '"token"'), "RL108", 11),
    "an undeclared dimension": (planted('per = ["token"]', 'per = ["teamspace"]'), "RL109", 8),
    "no source": (planted('exempt = ["GET /healthz"]', 'dimensions = { t = "body:t" }'), "RL111", 3),
    "a value twice": (planted('per = ["token"]', 'per = ["token", "token"]'), "RL112", 8),
    "no endpoint": (planted('"GET /healthz"', '"GET healthz"'), "RL113", 3),
    "no method": (planted('per = ["token"]', 'per = "token"\nmethods = ["GET POST"]'), "RL113", 9),
    "a name that headers cannot hold": (planted('"requests"', '"Anfragen €"'), "RL114", 17),
    "no URI": (GOOD + '[response]\nproblem_base = "errors"\n', "RL117", 22),
    "no hours": (GOOD + 'schedule = [{start = "25:00", end = "06:00", limit = 5}]\n', "RL118", 21),
    "no key": (planted('store = "redis://localhost"', 'hash_key = ""'), "RL119", 2),
    "no store": (planted("redis://localhost", "localhost"), "RL120", 2),
    "one table": (planted("[[quotas]]", "[quotas]"), "RL121", 16),
    "a limit that never refuses": (
        GOOD + '[[limits]]\nname = "slow"\nrate = "900/second"\nper = "token"\n',
        "RL609",
        21,
    ),
    "a token above its organization": (planted("600/minute", "90000/minute"), "RL611", 5),
    "a misspelt plan": (GOOD + "plans = { buisness = 5000 }\n", "RL616", 16),
    "exempt paths": (
        planted('exempt = ["GET /healthz"]', 'exempt = ["/healthz"]') + 'paths = ["/healthz"]\n',
        "RL618",
        16,
    ),
}


def findings(tmp_path: Path, text: str) -> list[Finding]:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    settings, found = check_file(str(file))
    return found if settings is None else check_settings(settings, file=str(file))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found(tmp_path: Path, name: str) -> None:
    """With its code, its severity and its line, and nothing else is reported."""
    text, code, line = MISTAKES[name]
    found = [each for each in findings(tmp_path, text) if each.severity != "info"]
    assert [(each.code, each.line) for each in found] == [(code, line)]
    assert found[0].severity == ("warning" if code > "RL600" else "error")
    assert f"limits.toml:{line}" in found[0].place
    assert "[RL" not in found[0].message


def test_a_good_file_has_no_warning(tmp_path: Path) -> None:
    """Only notes: of what a request costs."""
    assert [(each.code, each.severity) for each in findings(tmp_path, GOOD)] == [("RL615", "info")]
    assert [each.code for each in findings(tmp_path, "[ratelimit]\n" + GOOD.replace("[[", "[[ratelimit."))] == ["RL615"]


def test_several_mistakes_are_all_found(tmp_path: Path) -> None:
    """Each at its own line."""
    text = planted("600/minute", "600/fortnight").replace('per = ["org"]\nplans', 'pre = ["org"]\nplans')
    assert [(each.code, each.line) for each in findings(tmp_path, text)] == [("RL106", 7), ("RL103", 13)]


def test_notes_are_infos(tmp_path: Path) -> None:
    """They may well be meant."""
    text = planted("1_000_000_000", "1000") + "shadow = true\n"
    text = text.replace('per = ["token"]', 'per = ["token"]\nburst = 0.001').replace(
        '"GET /healthz"]', '"GET /healthz"]\ndimensions = ["x"]'
    )
    text = text.replace(
        'name = "token"  # line 6\nrate = "600/minute"\nper = ["token"]',
        'name = "t"\nrate = "600/minute"\nper = ["org"]',
    )
    codes = {each.code: each.severity for each in findings(tmp_path, text)}
    assert codes == dict.fromkeys(["RL612", "RL615", "RL617", "RL619", "RL620"], "info")


def test_routes_are_checked_too() -> None:
    """Those without a limit, and what no route has."""

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/a", answer), Route("/b/{id}", answer, methods=["POST"])])
    settings = RateLimitSettings(
        limits=[
            Limit(name="a", rate="5/minute", per="token", paths="/a"),
            Limit(name="x", rate="5/minute", paths="/x"),
        ],
        quotas=[Quota(name="q", limit=5, paths="/a")],
    )
    found = {each.code: each for each in check_settings(settings, app=app, has_own_identify=False)}
    assert found["RL610"].message == "route POST /b/{id} has no limit and is not exempt"
    assert found["RL605"].place == "limits.1"
    assert "at GET /a" in found["RL615"].message
    assert found.keys() == {"RL610", "RL605", "RL601", "RL615", "RL215"}


def test_decorated_routes_without_an_effect_are_errors() -> None:
    """Where the app has no middleware, and where another function is served in place of the decorated one."""

    @limit("5/minute", per="ip")
    async def decorated(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    async def wrapper(*arguments: Any, **options: Any) -> Any:
        return await decorated(*arguments, **options)

    (found,) = check_unlimited_app(Starlette(routes=[Route("/a", decorated)]))
    assert (found.code, found.severity) == ("RL614", "error")
    assert found.message == "limit 'decorated' on GET /a has no effect: the app has no RateLimitMiddleware"
    app = Starlette(routes=[Route("/b", wrapper)])
    codes = {each.code: each.severity for each in check_settings(RateLimitSettings(), app=app)}
    assert codes == {"RL204": "error"}


def test_levels_may_be_evicted() -> None:
    """Where the server drops keys; quotas of a period would only begin again."""
    settings = RateLimitSettings(
        quotas=[Quota(name="items", limit=5, per="org"), Quota(name="q", limit=5, period="day")]
    )
    assert [(each.code, each.place) for each in level_problem(settings, "allkeys-lru")] == [("RL613", "quotas.0")]
    assert list(level_problem(settings, "noeviction")) == []
