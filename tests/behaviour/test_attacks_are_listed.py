"""The promise: the table of SECURITY.md lists every attack that is a test, and none that is not."""

import re
from pathlib import Path

HERE = Path(__file__).parent
SECURITY = (HERE.parent.parent / "SECURITY.md").read_text()


def test_the_table_and_the_tests_are_the_same() -> None:
    """By the name of each test, below that of its file."""
    table = SECURITY.partition("## Attacks that are tests")[2].partition("\n## ")[0]
    parts = table.split("| tests/behaviour/")[1:]
    listed = {part.partition(" ")[0]: re.findall(r"\| (test_\w+) \|", part) for part in parts}
    files = [path for path in sorted(HERE.glob("test_attacks_*.py")) if path != Path(__file__)]
    found = {path.name: re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE) for path in files}
    assert {name: sorted(tests) for name, tests in listed.items()} == {
        name: sorted(tests) for name, tests in found.items()
    }
