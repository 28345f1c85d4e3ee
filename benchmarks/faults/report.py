"""The report: a table of all faults, and a picture of two of them over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.measures import FaultResult
from benchmarks.faults.settings import LIMIT, TIMEOUT, WINDOW

DRAWN: Final = ("killed and restarted, with its data", "server hung (SIGSTOP)")

_HEAD: Final = f"""# Faults

This page shows what the limiter does while its store fails, as measured by `make faults`. Four worker processes, each an
ASGI app with the middleware, get 400 requests a second in total. All requests have one token, which is limited to {LIMIT}
requests in any {WINDOW} seconds (L), and a quota counts the served ones. The fault begins after four seconds and ends four
seconds later; after six more seconds the counters are compared. `store_timeout` is {TIMEOUT:g} s. Faults of the network
happen in a proxy between the workers and a real Redis.

* **failed**: requests that were answered with 401 or 5xx, or not at all.
* **admitted**: the most admissions in any window of {WINDOW} s, as a multiple of L: before the fault, in windows that touch it
  or the second after it, and later. The workers record the times after they have answered, with a jitter of a few
  milliseconds.
* **longest**: the longest wait of a request since the beginning of the fault. **later**: how much longer the 99th percentile
  of requests waits during the fault, from one second after its beginning on, than before it.
* **back**: the time from the end of the fault until the store has decided a request of each of the four workers. Where a
  replica takes over: the time from the kill until the last local decision of a worker (node and failure timeouts are 0.3 to
  0.5 s).
* **quota**: the store's count at the end minus the served requests. Above zero, charges were counted twice; below zero,
  charges are missing (at a failover, those that the master had not replicated).
* **outages**, **lost**: what the workers' own metrics say (`ratelimit.store.outages`, `ratelimit.outbox.lost`), summed up.
  **metrics**: whether the metrics of each worker count the same requests, refusals and local decisions as its answers, and
  no correction that still waits.

| fault | answered | failed | degraded | admitted × L | longest | later | back | quota | outages | lost | metrics |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def write(results: Sequence[FaultResult], checks: str, folder: Path) -> None:
    """Write `faults.md` and `faults.png` into a folder."""
    rows = "".join(f"| {' | '.join(_cells(each))} |\n" for each in results)
    _draw([each for each in results if each.name in DRAWN], folder / "faults.png")
    page = folder / "faults.md"
    known = page.read_text() if page.exists() else ""
    rest = known.partition("<!-- end -->")[2] or "\n"
    page.write_text(f"{_HEAD}{rows}\n{checks}\n\n![Two faults over time](faults.png)\n<!-- end -->{rest}")
    print(f"wrote {page.relative_to(folder.parent)}")


def _cells(one: FaultResult) -> list[str]:
    return [
        one.name,
        f"{one.requests:,}",
        str(one.failed),
        f"{one.degraded:,}",
        f"{one.before:.2f} / {one.during:.2f} / {one.after:.2f}",
        f"{one.longest_ms:.0f} ms",
        f"{one.later_ms:+.1f} ms",
        "" if one.recovery is None else f"{one.recovery:.2f} s",
        "" if one.difference is None else f"{one.difference:+d}" if one.difference else "0",
        str(one.outages),
        str(one.lost),
        "agree" if one.metrics_agree else "**differ**",
    ]


def _draw(results: Sequence[FaultResult], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only needed at the end

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, len(results), figsize=(11, 5.5), layout="constrained", squeeze=False, sharex=True)
    for column, one in enumerate(results):
        top, bottom = axes[0][column], axes[1][column]
        seconds = [each[0] for each in one.timeline]
        _shade(top)
        _shade(bottom)
        top.plot(seconds, [each[1] for each in one.timeline], color="#2a7ab9", label="admitted/s")
        top.plot(seconds, [each[2] for each in one.timeline], color="#c9a227", linewidth=0.8, label="refused/s")
        top.axhline(LIMIT / WINDOW, color="#8a9ba8", linestyle="--", linewidth=0.8, label="L per second")
        top.set_title(one.name, loc="left", fontsize=11)
        bottom.plot(seconds, [each[3] for each in one.timeline], color="#b5453c")
        bottom.set_yscale("log")
        bottom.set_xlabel("seconds; the fault is shaded")
    axes[0][0].set_ylabel("requests/s")
    axes[0][0].legend(frameon=False, fontsize=8)
    axes[1][0].set_ylabel("longest wait, ms")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _shade(axes: Any) -> None:
    axes.axvspan(4, 8, color="#f3e3e1")
    axes.spines[["top", "right"]].set_visible(False)
