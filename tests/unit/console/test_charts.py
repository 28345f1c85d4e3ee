"""Charts are as high as their largest bar, and their titles are escaped."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.console.charts import Bar, bar_chart, powers_of_two


def test_bars_fill_the_chart_and_nothing_is_no_bar() -> None:
    """The parts stand on each other."""
    chart = bar_chart([Bar(title="a", parts=(3, 0, 0, 1)), Bar(title="b", parts=())], title="t", width=10, height=42)
    heights = [float(each) for each in re.findall(r'<rect[^>]* height="([\d.]+)"', chart)]
    assert heights == [30.0, 10.0]
    assert 'class="within"' in chart
    assert 'class="over"' in chart
    assert chart.count("<g>") == 1
    assert "rect" not in bar_chart([], title="t")


def test_titles_are_text() -> None:
    """Whatever a policy is called."""
    chart = bar_chart([Bar(title="<script>", parts=(1,))], title='"><script>')
    assert "<script>" not in chart
    assert "&lt;script&gt;" in chart


@given(st.lists(st.integers(0, 10**9), max_size=50))
def test_each_number_is_in_one_group(numbers: list[int]) -> None:
    """Of those that are at least 1; groups follow each other."""
    groups = powers_of_two(numbers)
    assert sum(count for _, count in groups) == sum(number >= 1 for number in numbers)
    assert all(later == 2 * earlier for (earlier, _), (later, _) in pairwise(groups))
    for low, count in groups:
        assert count == sum(low <= number < 2 * low for number in numbers)
