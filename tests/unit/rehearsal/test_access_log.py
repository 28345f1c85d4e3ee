"""Access logs: read in the order of time, whatever the order of their lines; nothing is lost unseen."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import ConfigurationError
from ratelimit.rehearsal.access_log import AccessLog


def log_of(path: Path, times: list[float], **options: Any) -> AccessLog:
    path.write_text("".join(f'{{"time": "{at:.3f}", "path": "/{n}"}}\n' for n, at in enumerate(times)))
    return AccessLog([str(path)], format_name="json", **options)


def test_lines_out_of_order_find_their_place(tmp_path: Path) -> None:
    """Within the time that is held back; one that comes later is taken for as old as the youngest before, and counted."""
    times = [1795000000.0 + at for at in (3.5, 1.5, 2.5, 100.5, 50.5, 2.5)]
    log = log_of(tmp_path / "a", times)
    found = [(record.path, record.at / 1e6 - 1795000000) for record in log.records()]
    assert found == [("/1", 1.5), ("/2", 2.5), ("/0", 3.5), ("/5", 3.5), ("/4", 50.5), ("/3", 100.5)]
    assert (log.counts.lines, log.counts.late, log.counts.jumps) == (6, 1, 0)


@given(times=st.lists(st.integers(0, 200_000), max_size=60), reorder=st.integers(0, 100))
def test_no_request_is_lost(tmp_path_factory: pytest.TempPathFactory, times: list[int], reorder: int) -> None:
    """And they come in order, whatever the log's."""
    log = log_of(tmp_path_factory.getbasetemp() / "h", [1795000000 + at / 1000 for at in times], reorder=reorder)
    found = list(log.records())
    assert sorted(record.path for record in found) == sorted(f"/{n}" for n in range(len(times)))
    assert [record.at for record in found] == sorted(record.at for record in found)


def test_whole_seconds_are_spread_or_at_once(tmp_path: Path) -> None:
    """In the order of the lines."""
    path = tmp_path / "a"
    path.write_text("".join(f'{{"time": "{1795000000 + n // 4}", "path": "/{n}"}}\n' for n in range(6)))
    evenly = [record.at - 1795000000_000000 for record in AccessLog([str(path)], format_name="json").records()]
    assert evenly == [0, 250_000, 500_000, 750_000, 1_000_000, 1_500_000]
    log = AccessLog([str(path)], format_name="json", at_once=True)
    assert [record.at - 1795000000_000000 for record in log.records()] == [0, 0, 0, 0, 1_000_000, 1_000_000]
    assert log.counts.whole_seconds


def test_several_files_are_merged_and_fields_may_have_other_names(tmp_path: Path) -> None:
    """Plain and zipped; with a span of time, and the share of the bytes that was read."""
    shares: list[float] = []
    with gzip.open(tmp_path / "a.gz", "wt") as file:
        file.write("".join(f'{{"when": "{1795000000 + n}.5", "what": {{"uri": "/{n}"}}}}\n' for n in (0, 2, 4)))
    (tmp_path / "b").write_text(
        "".join(f'{{"when": "{1795000000 + n}.5", "what": {{"uri": "/{n}"}}}}\n' for n in (1, 3))
    )
    log = AccessLog(
        [str(tmp_path / "a.gz"), str(tmp_path / "b")],
        aliases={"time": "when", "path": "what.uri"},
        since=1795000001_000000,
        until=1795000004_000000,
        on_progress=shares.append,
    )
    assert [record.path for record in log.records()] == ["/1", "/2", "/3"]
    assert shares[-1] == 1.0
    assert (log.counts.first, log.counts.last) == (1795000001_500000, 1795000003_500000)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is not there, and a field that nothing needs."""
    with pytest.raises(ConfigurationError, match="nowhere: No such file"):
        AccessLog([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigurationError, match="--field: 'token' is not one of time, method, path, status, duration"):
        AccessLog([], aliases={"token": "x"})


def test_a_clock_that_was_set_is_followed(tmp_path: Path) -> None:
    """More than an hour back or a day ahead: no later request is taken for an old one."""
    times = [1795000000.0 + at for at in (0, 90, 86_400 * 3, 86_400 * 3 + 90, 100, 190, 300)]
    log = log_of(tmp_path / "a", times)
    assert [record.path for record in log.records()] == [f"/{n}" for n in range(7)]
    assert (log.counts.jumps, log.counts.late) == (2, 0)


def test_a_request_that_takes_long_begins_before_the_lines_above_it(tmp_path: Path) -> None:
    """Within the time that is held back, and by no leap of the clock: one of two hours is taken for younger than it is."""
    path = tmp_path / "a"
    lines = [(0.5, 0), (50.25, 50), (200.5, 0), (261.5, 0), (7300.5, 7200), (7301.5, 0)]
    path.write_text(
        "".join(
            f'{{"time": "{1795000000 + at}", "path": "/{n}", "request_time": "{took}"}}\n'
            for n, (at, took) in enumerate(lines)
        )
    )
    log = AccessLog([str(path)], format_name="json")
    found = [(record.path, record.at / 1e6 - 1795000000) for record in log.records()]
    assert found == [("/1", 0.25), ("/0", 0.5), ("/2", 200.5), ("/4", 200.5), ("/3", 261.5), ("/5", 7301.5)]
    assert (log.counts.jumps, log.counts.late) == (0, 1)


def test_whole_seconds_are_spread_although_lines_are_out_of_order(tmp_path: Path) -> None:
    """By the stamp, not by what is adjacent."""
    path = tmp_path / "a"
    seconds = [0, 1, 0, 1, 0, 1, 0, 1]
    path.write_text("".join(f'{{"time": "{1795000000 + at}", "path": "/{n}"}}\n' for n, at in enumerate(seconds)))
    found = [record.at - 1795000000_000000 for record in AccessLog([str(path)], format_name="json").records()]
    assert found == [n * 250_000 for n in range(8)]


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_file_that_ends_too_early_is_used_as_far_as_it_goes(tmp_path: Path, *, is_cut: bool) -> None:
    """A zipped log that was cut off, or one with nothing in it; a byte order mark is no part of the first line."""
    text = "".join(f'{{"time": "{1795000000 + n}.5", "path": "/{n}"}}\n' for n in range(5000))
    zipped = gzip.compress(("\ufeff" + text).encode())
    (tmp_path / "a.gz").write_bytes(zipped[: len(zipped) // 2] if is_cut else zipped)
    (tmp_path / "empty").write_text("")
    log = AccessLog([str(tmp_path / "empty"), str(tmp_path / "a.gz")], format_name="json")
    found = list(log.records())
    assert found[0].path == "/0"
    assert log.counts.broken == ([str(tmp_path / "a.gz")] if is_cut else [])
    assert (len(found) < 5000) is is_cut
