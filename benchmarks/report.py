"""The result of a benchmark: figures, and a picture of them."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

_LOG_SCALE_RATIO: Final = 50
"""The ratio of the largest bar to the smallest above which the axis is logarithmic."""


@dataclass(frozen=True)
class Result:
    """Figures of one question.

    `bars` are medians in `unit`, and `spread` the (lowest, highest) of all rounds. `ratios` are the medians over the rounds
    of the ratio to the first bar. `lines`, if there are any, are drawn instead of bars: for each name, its values over
    the quantity that `across` names.
    """

    name: str
    question: str
    goal: str
    measured: str
    unit: str
    bars: dict[str, float]
    spread: dict[str, tuple[float, float]]
    ratios: dict[str, float]
    lines: dict[str, dict[int, float]] = field(default_factory=dict)
    across: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return asdict(self)


def draw(result: Result, path: Path) -> None:
    """Draw the figures as a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only needed at the end

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    rows = 7 if result.lines else len(result.bars)
    figure, axes = plt.subplots(figsize=(8, 0.7 * rows + 1.4), layout="constrained")
    (_draw_lines if result.lines else _draw_bars)(result, axes)
    axes.set_title(result.question, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def _draw_lines(result: Result, axes: Any) -> None:
    for name, points in result.lines.items():
        axes.plot(list(points), list(points.values()), marker="o", linewidth=2.5 if name == "ours" else 1.2, label=name)
        last = max(points)
        axes.annotate(
            f"{points[last]:,.0f}", (last, points[last]), xytext=(6, -3), textcoords="offset points", fontsize=8
        )
    ticks = sorted({across for points in result.lines.values() for across in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_yscale("log")
    axes.set_xlabel(result.across)
    axes.set_ylabel(result.unit)
    axes.grid(visible=True, which="major", color="#e4e8eb")
    axes.legend(frameon=False, fontsize=8)


def _draw_bars(result: Result, axes: Any) -> None:
    names, values = list(result.bars), list(result.bars.values())
    low = [value - result.spread[name][0] for name, value in result.bars.items()]
    high = [result.spread[name][1] - value for name, value in result.bars.items()]
    bars = axes.barh(names, values, xerr=[low, high], color=["#8a9ba8", *["#2a7ab9"] * (len(names) - 1)], capsize=3)
    labels = [f"{value:.1f} {result.unit}  ({result.ratios[name]:.2f}×)" for name, value in result.bars.items()]
    axes.bar_label(bars, labels, padding=8)
    most = max(v + h for v, h in zip(values, high, strict=True))
    if most > _LOG_SCALE_RATIO * min(values):  # Otherwise the small bars would not be visible.
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, most * 30)
    else:
        axes.set_xlim(0, most * 1.35)
    axes.invert_yaxis()
    axes.set_xlabel(f"{result.unit} (median, with the lowest and highest round)")
