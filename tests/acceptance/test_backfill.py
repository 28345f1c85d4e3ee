"""The promise: `examples.backfill` delivers all records exactly once, unrefused, also where it is stopped in the middle."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.redis_server import pause

COMMAND = [sys.executable, "-m", "examples.backfill", "--journal"]


def stored(journal: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(f"{journal}.records") as database:
        rows = database.execute("SELECT key, sent FROM records ORDER BY key").fetchall()
    database.close()
    return rows


def test_two_thousand_records(tmp_path: Path) -> None:
    """All of them once, none refused; the totals are told."""
    done = subprocess.run([*COMMAND, str(tmp_path / "j")], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path / "j") == [(f"rec_{number:05}", 1) for number in range(2000)]
    for shown in ("2000/2000", "delivered 2000 in", "refused 0", "stored 2000 records", "all as promised"):
        assert shown in done.stdout, shown
    assert done.stderr == ""


def test_stopped_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends it at once and loses nothing; what was sent twice is stored once."""
    journal = tmp_path / "j"
    process = subprocess.Popen(
        [*COMMAND, str(journal), "--records", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not journal.exists() or journal.read_text().count("\n") < 300:
        assert process.poll() is None
        pause()
    process.send_signal(signal.SIGINT)
    told, wrong = process.communicate(timeout=30)
    assert (process.returncode, wrong) == (130, "")
    assert "run it again" in told
    delivered = journal.read_text().count("\n")
    assert 300 <= delivered < 1000
    again = subprocess.run(
        [*COMMAND, str(journal), "--records", "1000"], capture_output=True, text=True, timeout=100, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{delivered} are delivered already, {1000 - delivered} to go" in again.stdout
    rows = stored(journal)
    assert [key for key, _ in rows] == [f"rec_{number:05}" for number in range(1000)]
    # At most what was under way was sent again.
    assert sum(sent - 1 for _, sent in rows) <= 8
