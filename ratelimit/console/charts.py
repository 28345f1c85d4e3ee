"""Charts of the console, drawn as SVG by the server: they need no script, and no style that a browser would refuse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

CLASSES: Final = ("within", "near", "shadow", "over")
"""What the parts of a bar stand for, from the bottom to the top; the styles have a color for each."""

_CHART: Final = Markup(
    '<svg class="chart" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{title}">'
    '<line class="axis" x1="0" y1="{height}" x2="{width}" y2="{height}"/>{bars}</svg>'
)
_BAR: Final = Markup("<g><title>{title}</title>{parts}</g>")
_PART: Final = Markup('<rect class="{name}" x="{x}" y="{y}" width="{width}" height="{height}"/>')


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: what it is for, and its parts in the order of `CLASSES`."""

    title: str
    parts: Sequence[int]


def bar_chart(bars: Sequence[Bar], *, title: str, width: int = 600, height: int = 120) -> Markup:
    """Return stacked bars, side by side, as large as the largest of them; `title` says what they show."""
    top, step = max([sum(bar.parts) for bar in bars] or [0]) or 1, width / max(1, len(bars))
    drawn = [_bar(bar, index * step, step, top, height) for index, bar in enumerate(bars)]
    return _CHART.format(width=width, height=height, title=title, bars=Markup("").join(drawn))


def _bar(bar: Bar, left: float, step: float, top: int, height: int) -> Markup:
    bottom, found = float(height), list[Markup]()
    for name, number in zip(CLASSES, bar.parts, strict=False):
        if number:
            size = max(1.0, number / top * (height - 2))
            bottom -= size
            place = {"x": f"{left:.2f}", "y": f"{max(0.0, bottom):.2f}", "width": f"{max(0.5, step * 0.86):.2f}"}
            found.append(_PART.format(name=name, height=f"{size:.2f}", **place))
    return _BAR.format(title=bar.title, parts=Markup("").join(found)) if found else Markup("")


def powers_of_two(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many numbers lie from each power of two on up to the next, as (power, how many), without gaps."""
    exponents = [int(math.log2(number)) for number in numbers if number >= 1]
    if not exponents:
        return []
    return [(2**each, exponents.count(each)) for each in range(min(exponents), max(exponents) + 1)]
