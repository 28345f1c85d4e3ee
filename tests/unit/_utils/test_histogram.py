"""Histograms count by upper bounds, which belong to their own bucket."""

from ratelimit._utils.histogram import Histogram


def test_each_observation_is_in_one_bucket() -> None:
    """The last is for those above all bounds."""
    histogram = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 2, 5, 5.1, 100):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 2]
    assert (histogram.number, round(histogram.total, 1)) == (7, 114.6)
