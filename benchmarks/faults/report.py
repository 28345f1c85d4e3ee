"""The report: a table of all faults, and a picture of two of them over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.measures import Measured
from benchmarks.faults.settings import LIMIT, TIMEOUT, WINDOW

DRAWN: Final = ("killed and restarted, with its data", "server hung (SIGSTOP)")

_HEAD: Final = f"""# Faults

What the limiter does while its store fails, measured by `make faults`: four worker processes, each an ASGI app with the
middleware, are asked 400 times a second for one token that may do {LIMIT} requests in any {WINDOW} seconds (L), beside a
quota that counts what was served. After four seconds the fault begins, four seconds later it ends, and six seconds later the
counters are compared. `store_timeout` is {TIMEOUT:g} s. Faults of the network happen in a proxy between the workers and a real
Redis.

* **failed**: answers of 401, 5xx or none at all.
* **admitted**: the most in any window of {WINDOW} s, in times of L: before the fault, in windows that touch it or the second
  after, and later. Times are taken by the workers when they have answered, so a few milliseconds' jitter is in them.
* **longest**: the longest wait of a request from the fault on; **later**: what the 99th percentile of the requests
  that began a second after the fault or later waited longer than before it.
* **back**: from the end of the fault until the last of the four workers had an answer of the store again; where a replica
  takes over, from the kill until the last decision that a worker made by itself (node and failure timeouts of 0.3 to 0.5 s).
* **quota**: what the store counts at the end, less what was served: above zero is double, below is missing (at a failover, what the
  master had not passed on).

| fault | answered | failed | degraded | admitted × L | longest | later | back | quota |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def write(results: Sequence[Measured], checks: str, folder: Path) -> None:
    """Write `faults.md` and `faults.png` into a folder."""
    rows = "".join(f"| {' | '.join(_cells(each))} |\n" for each in results)
    _draw([each for each in results if each.name in DRAWN], folder / "faults.png")
    page = folder / "faults.md"
    known = page.read_text() if page.exists() else ""
    rest = known.partition("<!-- end -->")[2] or "\n"
    page.write_text(f"{_HEAD}{rows}\n{checks}\n\n![Two faults over time](faults.png)\n<!-- end -->{rest}")
    print(f"wrote {page.relative_to(folder.parent)}")


def _cells(one: Measured) -> list[str]:
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
    ]


def _draw(results: Sequence[Measured], path: Path) -> None:
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
