"""The promise: `examples.client.backfill` delivers all records once and without refusals, also if it is stopped meanwhile."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import pause

COMMAND = [sys.executable, "-m", "examples.client.backfill", "--journal"]


def stored(journal: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(f"{journal}.records") as database:
        rows = database.execute("SELECT key, sent FROM records ORDER BY key").fetchall()
    database.close()
    return rows


def test_two_thousand_records(tmp_path: Path) -> None:
    """The server stores all of them once and refuses none; the client prints the totals."""
    done = subprocess.run([*COMMAND, str(tmp_path / "j")], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path / "j") == [(f"rec_{number:05}", 1) for number in range(2000)]
    for expected in ("2000/2000", "delivered 2000 in", "refused 0", "stored 2000 records", "all as promised"):
        assert expected in done.stdout, expected
    assert done.stderr == ""


def test_a_stopped_backfill_continues(tmp_path: Path) -> None:
    """Ctrl-C ends it at once and loses nothing; records that were sent twice are stored once."""
    journal = tmp_path / "j"
    process = subprocess.Popen(
        [*COMMAND, str(journal), "--records", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not journal.exists() or journal.read_text().count("\n") < 300:
        assert process.poll() is None
        pause()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")
    assert "run it again" in output
    delivered = journal.read_text().count("\n")
    assert 300 <= delivered < 1000
    again = subprocess.run(
        [*COMMAND, str(journal), "--records", "1000"], capture_output=True, text=True, timeout=250, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{delivered} are delivered already, {1000 - delivered} to go" in again.stdout
    rows = stored(journal)
    assert [key for key, _ in rows] == [f"rec_{number:05}" for number in range(1000)]
    # At most the requests in flight were sent again.
    assert sum(sent - 1 for _, sent in rows) <= 8
