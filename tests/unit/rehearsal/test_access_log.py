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
