"""Lines of TOML: where the value of a path begins, whichever way it is written."""

import pytest

from ratelimit.inspection.toml_lines import TomlLines

TEXT = """
a = 1
# a comment
list = [
  1,
  2,
]

[table]
b = { c = { d = 1 } }
"quoted key" = '''
several
lines'''

[[many]]
x = 1

[[many]]
y.z = 2

[many.inner]
w = 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("list",), 4),
        (("list", 1), 4),
        (("table",), 9),
        (("table", "b", "c", "d"), 10),
        (("table", "quoted key"), 11),
        (("many", 0), 15),
        (("many", 0, "x"), 16),
        (("many", 1), 18),
        (("many", 1, "y", "z"), 19),
        (("many", 1, "inner", "w"), 22),
        (("many", 1, "missing"), 18),
        (("many", 7), 15),
        (("nowhere",), None),
        (("a", "b"), 2),
    ],
)
def test_a_value_is_found(path: tuple[str | int, ...], line: int | None) -> None:
    """A path that is not there leads to the nearest table around it."""
    assert TomlLines(TEXT).line_of(path) == line
