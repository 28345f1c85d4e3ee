"""The report: a table for each topology, and a picture of a few faults over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.deployments import TOPOLOGIES
from benchmarks.faults.fault import Fault
from benchmarks.faults.fleet import PACE, WORKERS
from benchmarks.faults.measures import TOLERATED, FaultResult
from benchmarks.faults.records import Records
from benchmarks.faults.settings import LIMIT, TIMEOUT, WINDOW

DRAWN: Final = (
    ("single", "killed and restarted, with its data"),
    ("cluster", "the master killed, its replica takes over"),
    ("sentinel", "the master killed, its replica takes over"),
)
"""The topologies and faults in the picture."""

_TITLES: Final = {
    "single": "A single Redis",
    "cluster": "A Redis Cluster of three masters",
    "sentinel": "A Redis master with a replica and three Sentinels",
}

_HEAD: Final = f"""# Faults

This page shows what the limiter does while its store fails, as measured by `make faults`, which writes it:
{{counts}}.

Each row is one run of a real deployment on one machine. {WORKERS} worker processes, each an ASGI app with the middleware, get
{WORKERS * PACE} requests a second in total. All requests have one token, which is limited to {LIMIT} requests in any
{WINDOW} seconds (L), and a quota counts the served ones. `store_timeout` is {TIMEOUT:g} s. The fault begins after 4¼ seconds,
when the workers have used half of a window, and ends four seconds later; after six more seconds the counters are compared.

Each server has a proxy in front of it, by which clients and other servers reach it; there the faults of the network happen.
A fault strikes the server that has the counters: the single one, the master that serves their hash slot, the master that the
Sentinels name. Masters have a replica that takes over after half a second only where the fault says so.

* **failed**: requests that were answered with 401 or 5xx, or not at all.
* **degraded**: requests that a worker decided without the store, by its share of the limit.
* **admitted**: the most admissions in any window of {WINDOW} s, as a multiple of L: before the fault, in windows that touch it
  or the second after it, and later. The workers record the times after they have answered, with a jitter of a few
  milliseconds.
* **longest**: the longest wait of a request since the beginning of the fault. **later**: how much longer the 99th percentile
  of requests waits during the fault, from one second after its beginning on, than before it.
* **back**: the time from the end of the fault until the store has decided a request of each worker. Where a replica takes
  over: the time from the beginning of the fault until the last local decision of a worker.
* **quota**: the store's count at the end minus the served requests. Above zero, charges were counted twice; below zero,
  charges are missing.
* **outages**, **lost**: what the workers' own metrics say (`ratelimit.store.outages`, `ratelimit.outbox.lost`), summed up.
  **metrics**: whether the metrics of each worker count the same requests, refusals and local decisions as its answers, and
  no correction that still waits.

A figure in parentheses is not promised, because the fault itself takes counts away or ends a window early; the notes below the
table say how. A figure in bold breaks a promise.
"""

_TABLE: Final = """
| fault | answered | failed | degraded | admitted × L | longest | later | back | quota | outages | lost | metrics |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def write(records: Records, folder: Path) -> None:
    """Write `faults.md` into a folder, with all rows that are there; what stands below its mark stays."""
    page = folder / "faults.md"
    known = page.read_text() if page.exists() else ""
    rest = known.partition("<!-- end -->")[2] or "\n"
    tables = "".join(_table(topology, records) for topology in TOPOLOGIES)
    head = _HEAD.format(counts=_counts(records))
    picture = "![Three faults over time](faults.png)"
    page.write_text(f"{head}{tables}\n## Many checks\n\n{records.checks}\n\n{picture}\n<!-- end -->{rest}")


def draw(records: Records, folder: Path) -> None:
    """Draw `faults.png`, where all that it shows was measured."""
    rows = [row for topology, name in DRAWN if (row := records.find(topology, name)) is not None]
    if len(rows) == len(DRAWN):
        _draw(rows, folder / "faults.png")


def possible() -> list[tuple[str, Fault]]:
    """Return each topology with each of its faults, fault by fault."""
    return [(topology, fault) for fault in FAULTS for topology in TOPOLOGIES if topology not in fault.missing]


def _counts(records: Records) -> str:
    def count(topology: str) -> int:
        return sum(records.find(topology, fault.name) is not None for fault in FAULTS if fault.name != "no fault")

    one, several, watched = (count(topology) for topology in TOPOLOGIES)
    return f"{one} faults of a single Redis, {several} of a Cluster and {watched} of a master with Sentinels"


def _table(topology: str, records: Records) -> str:
    rows = []
    for fault in FAULTS:
        row = records.find(topology, fault.name)
        if reason := fault.missing.get(topology):
            rows.append(f"| {fault.name} | — {reason} |{' |' * 10}\n")
        elif row is not None:
            rows.append(f"| {' | '.join(_cells(row, fault))} |\n")
    notes = [
        f"* **{fault.name}**: {fault.why}.\n"
        for fault in FAULTS
        if not (fault.keeps_limit(topology) and fault.keeps_data(topology)) and topology not in fault.missing
    ]
    return f"\n## {_TITLES[topology]}\n{_TABLE}{''.join(rows)}\nNot promised:\n\n{''.join(notes)}"


def _cells(one: FaultResult, fault: Fault) -> list[str]:
    keeps_limit = fault.keeps_limit(one.topology)
    admitted = [_admitted(each, promised=keeps_limit) for each in (one.before, one.during, one.after)]
    difference = f"{one.difference:+d}" if one.difference else "0"
    return [
        one.name,
        f"{one.requests:,}",
        f"**{one.failed}**" if one.failed else "0",
        f"{one.degraded:,}",
        " / ".join(admitted),
        f"{one.longest_ms:.0f} ms",
        f"{one.later_ms:+.1f} ms",
        "" if one.recovery is None else f"{one.recovery:.2f} s",
        _marked(difference, is_well=one.difference == 0, promised=fault.keeps_data(one.topology)),
        str(one.outages),
        str(one.lost),
        "agree" if one.metrics_agree else "**differ**",
    ]


def _admitted(multiple: float, *, promised: bool) -> str:
    return _marked(f"{multiple:.2f}", is_well=multiple <= TOLERATED, promised=promised)


def _marked(text: str, *, is_well: bool, promised: bool) -> str:
    return text if is_well else f"**{text}**" if promised else f"({text})"


def _draw(results: Sequence[FaultResult], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only needed at the end

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, len(results), figsize=(14, 5.5), layout="constrained", squeeze=False, sharex=True)
    for column, one in enumerate(results):
        top, bottom = axes[0][column], axes[1][column]
        seconds = [each[0] for each in one.timeline]
        _shade(top)
        _shade(bottom)
        top.plot(seconds, [each[1] for each in one.timeline], color="#2a7ab9", label="admitted/s")
        top.plot(seconds, [each[2] for each in one.timeline], color="#c9a227", linewidth=0.8, label="refused/s")
        top.axhline(LIMIT / WINDOW, color="#8a9ba8", linestyle="--", linewidth=0.8, label="L per second")
        top.set_title(f"{one.topology}: {one.name}", loc="left", fontsize=10)
        bottom.plot(seconds, [each[3] for each in one.timeline], color="#b5453c")
        bottom.set_yscale("log")
        bottom.set_xlabel("seconds; the fault is shaded")
    axes[0][0].set_ylabel("requests/s")
    axes[0][0].legend(frameon=False, fontsize=8)
    axes[1][0].set_ylabel("longest wait, ms")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _shade(axes: Any) -> None:
    axes.axvspan(4.25, 8.25, color="#f3e3e1")
    axes.spines[["top", "right"]].set_visible(False)
