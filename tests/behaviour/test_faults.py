"""`make faults`: every fault is there for every topology that can have it, and what was measured is kept."""

from pathlib import Path

import pytest

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.deployments import TOPOLOGIES
from benchmarks.faults.measures import FaultResult
from benchmarks.faults.records import Records
from benchmarks.faults.report import possible, write


def row(topology: str, name: str, degraded: int = 0) -> FaultResult:
    return FaultResult(name, topology, 5600, 0, degraded, 1.0, 1.0, 1.0, 10.0, 0.1, None, 0, 0, 0, metrics_agree=True)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_at_least_thirty_faults_are_measured_on_each_topology(topology: str) -> None:
    """The results that are published have them all; "no fault" is none."""
    names = [fault.name for each, fault in possible() if each == topology and fault.name != "no fault"]
    records = Records()
    assert len(names) >= 30
    assert [name for name in names if records.find(topology, name) is None] == []


def test_a_fault_that_a_topology_cannot_have_gives_the_reason() -> None:
    """And each fault happens somewhere, under a name of its own."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.missing.keys() < TOPOLOGIES.keys()
        assert all(fault.missing.values())


def test_two_runs_at_a_time_keep_each_others_rows(tmp_path: Path) -> None:
    """A row that is measured again replaces the one before."""
    one, two = Records(tmp_path / "faults.json"), Records(tmp_path / "faults.json")
    one.add(row("single", "FLUSHALL"))
    two.add(row("cluster", "FLUSHALL"))
    two.add(row("single", "FLUSHALL", degraded=7))
    one.add_checks("all is well")
    kept = Records(tmp_path / "faults.json")
    assert kept.checks == "all is well"
    assert kept.find("cluster", "FLUSHALL") == row("cluster", "FLUSHALL")
    assert kept.find("single", "FLUSHALL") == row("single", "FLUSHALL", degraded=7)


def test_the_page_marks_what_breaks_a_promise_and_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    """A figure that is not promised is in parentheses, one that breaks a promise is bold."""
    (tmp_path / "faults.md").write_text("old\n<!-- end -->\n\n## A soak\n")
    records = Records(tmp_path / "faults.json")
    lost, broken = row("single", "FLUSHALL"), row("cluster", "LOADING")
    lost.difference = -5
    broken.during, broken.failed = 1.3, 2
    records.add(lost)
    records.add(broken)
    write(records, tmp_path)
    page = (tmp_path / "faults.md").read_text()
    assert "| (-5) |" in page
    assert "| LOADING | 5,600 | **2** | 0 | 1.00 / **1.30** / 1.00 |" in page
    assert page.endswith("<!-- end -->\n\n## A soak\n")
