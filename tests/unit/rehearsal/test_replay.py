"""The replay: `rehearsal.replay`, `rehearsal.result` and `rehearsal.reports` count what limits would change, and show it.

`tests/behaviour/test_rehearsal.py` runs `cli.commands.rehearsing` and `cli.log_source` on logs of real servers.
"""

from pathlib import Path

import pytest

from ratelimit import Limit, Quota, RateLimitSettings
from ratelimit.rehearsal import replay as replaying
from ratelimit.rehearsal.access_log import AccessLog
from ratelimit.rehearsal.callers import CallerFields, LogCallers
from ratelimit.rehearsal.replay import OTHERS, Replay, longer
from ratelimit.rehearsal.reports import headline, html, markdown, timeline, wait_text
from ratelimit.rehearsal.result import ReplayResult, instant_text, result_of


def cost(request: object) -> int:
    return 1


SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="a", rate="2/minute", per="ip"),
        Limit(name="priced", rate="99/minute", per="ip", cost=cost),
        Limit(name="keyed", rate="1/minute", key=lambda request: "x"),
        Limit(name="refunded", rate="99/minute", per="ip", refund_on=[500]),
    ]
)


def result(path: Path, lines: list[tuple[float, str, int]], settings: RateLimitSettings = SETTINGS) -> ReplayResult:
    path.write_text(
        "".join(
            f'{{"time": "{1795000000 + at:.3f}", "path": "/<x>|", "remote_addr": "{who}"'
            + (f', "status": {status}' if status else "")
            + "}\n"
            for at, who, status in lines
        )
    )
    log = AccessLog([str(path)], format_name="json")
    replay = Replay(settings, LogCallers(CallerFields()))
    replay.run(log)
    return result_of(replay, log.counts, is_compared=False)


def test_flips_are_counted_both_ways(tmp_path: Path) -> None:
    """What the log has refused, and would be served; what it has served, and would be refused."""
    lines = [(n / 10, "192.0.2.1", 200) for n in range(4)] + [(1.0, "192.0.2.2", 429)]
    found = result(tmp_path / "log", lines)
    tally = found.tally
    assert (tally.requests, tally.refused, tally.newly_refused, tally.newly_admitted, tally.refused_before) == (
        5,
        2,
        2,
        1,
        1,
    )
    assert found.newly_refused_share == 0.4
    assert [(name, each.refused, each.requests) for name, each in found.worst_callers()] == [
        ("192.0.2.1", 2, 4),
        ("192.0.2.2", 0, 1),
    ]
    data = found.as_dict()
    assert [row["policy"] for row in data["policies"]] == ["a", "priced", "refunded"]
    assert data["policies"][0] == {"policy": "a", "checks": 5, "refused": 2, "shadow": 0, "longest_wait": 59.801}
    assert data["callers"][0]["first_refused"] == "2026-11-18 11:06:40 UTC"
    assert {each["policy"]: each["why"] for each in found.not_rehearsed} == {
        "priced": "its cost is a function of the request, and was taken as 1",
        "keyed": "its key is a function of the request, which the log does not have",
    }


def test_a_log_without_statuses_gives_nothing_back(tmp_path: Path) -> None:
    """And says so."""
    found = result(tmp_path / "log", [(0, "192.0.2.1", 0)])
    assert {each["policy"] for each in found.not_rehearsed} == {"priced", "keyed", "refunded"}
    empty = result(tmp_path / "log", [])
    assert (empty.newly_refused_share, empty.counts.is_unreadable) == (0.0, False)


def test_callers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound they are counted as one, and the result says so."""
    monkeypatch.setattr(replaying, "MAX_CALLERS", 5)
    found = result(tmp_path / "log", [(n, f"192.0.2.{n}", 200) for n in range(20)])
    assert len(found.tally.callers) == 6
    assert found.tally.callers[OTHERS].requests == 15
    assert any("the others are counted as one" in note for note in found.notes)
    assert found.tally.policies["a"].checks == 20


def test_reports_show_the_same_numbers_and_escape_names(tmp_path: Path) -> None:
    """Markdown and HTML; a wait that never ends is one."""
    lines = [(n / 10, '<b>"', 200) for n in range(5)]
    settings = RateLimitSettings(
        limits=[Limit(name="a", rate="2/minute", per="ip")], quotas=[Quota(name="<q>", limit=4, per="ip")]
    )
    path = tmp_path / "log"
    path.write_text(
        "".join(f'{{"time": "{1795000000 + at:.3f}", "path": "/<x>|", "remote_addr": "<b>"}}\n' for at, _, _ in lines)
    )
    log = AccessLog([str(path)], format_name="json")
    replay = Replay(settings, LogCallers(CallerFields()), routes=["/<x>|"])
    replay.run(log)
    found = result_of(replay, log.counts, is_compared=True, refused_at_once=4)
    assert headline(found).startswith("3 of 5 requests (60.00%) would be refused, of 1 of 1 callers; 4 if all")
    text, page = markdown(found, 0.5), html(found)
    assert "Budget of 50.00% newly refused requests: **exceeded**." in text
    assert "| `GET /<x>\\|` | 5 | 3 |" in text
    assert "<b>" not in page.replace("<b>&lt;q&gt;", "")
    assert "GET /&lt;x&gt;|" in page
    assert (wait_text(None), wait_text(0.0), wait_text(1.25)) == ("never", "-", "1.2 s")
    assert found.as_dict()["refused_at_once"] == 4


def test_the_timeline_is_bounded_and_adds_up() -> None:
    """However long the log is, and where there is none."""
    assert "no requests" in timeline({})
    picture = timeline({minute: [10, 2] for minute in range(0, 10_000, 7)})
    assert picture.count("<rect") <= 2 * 150
    assert instant_text(None) is None
    assert [longer(1.0, 2.0), longer(None, 2.0), longer(1.0, None)] == [2.0, None, None]
