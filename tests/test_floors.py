"""The floors of the house: a module imports only from lower floors, and sideways only inside its own folder."""

import ast
import gc
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ratelimit"
FLOORS = [
    ["errors", "clock", "rate", "identity", "periods", "turns", "waiting"],
    ["fields", "schedule", "policy", "charge", "decision"],
    ["style", "settings", "keys", "decorators", "algorithms"],
    ["rules", "plan", "refusals", "ahead", "stores"],
    ["receipts", "fallback", "senders", "absence", "resilience", "overrides"],
    ["limiter"],
    ["http", "pacing", "throttle"],
    ["client", "testing"],
    ["__init__"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    """Parse a file. CPython 3.11 fails where a collection of garbage runs Python code in the middle of it."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imports(path: Path) -> list[str]:
    """Return every module that a file imports, also inside functions and for type checkers only."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            found.append(node.module or "")
    return found


def room(path: Path) -> str:
    """Return the module or folder of the house that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_or_sideways_in_the_same_folder(path: Path) -> None:
    """Nobody imports from above, and nobody imports the package's root."""
    here = room(path)
    for name in imports(path):
        if name.split(".")[0] != "ratelimit":
            continue
        assert name != "ratelimit", "imports the package root"
        there = name.split(".")[1]
        beside = here == there or (
            FLOOR[here] == FLOOR[there] and path.parent == ROOT and (ROOT / f"{there}.py").exists()
        )
        assert FLOOR[there] < FLOOR[here] or beside, f"{here} imports {there}"


def test_there_are_no_circles() -> None:
    """Modules beside each other do not import each other."""
    edges = {
        (f"ratelimit.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}", name)
        for path in FILES
        for name in imports(path)
        if name.startswith("ratelimit.")
    }
    assert not {(a, b) for a, b in edges if (b, a) in edges}


def test_only_stores_import_redis() -> None:
    """The rest of the house does not know what Redis is."""
    users = {room(path) for path in FILES for name in imports(path) if name.split(".")[0] == "redis"}
    assert users == {"stores"}


def test_only_the_clock_reads_the_time() -> None:
    """Instants are arguments everywhere else."""
    assert {path.name for path in FILES if "time" in imports(path)} == {"clock.py"}
    assert not [path for path in FILES if re.search(r"\.(now|utcnow|today)\(", path.read_text())]


def test_functions_and_files_end() -> None:
    """No function over 40 lines and no file over 300."""
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                assert (node.end_lineno or 0) - body[0].lineno < 40, f"{path}: {node.name}"


def test_no_dependency_beyond_the_declared_ones() -> None:
    """What is imported is in the standard library, in `dependencies` or, for some folders, in an extra of theirs."""
    declared = set(re.findall(r'^    "([a-z]+)>=', (ROOT.parent / "pyproject.toml").read_text(), re.MULTILINE)[:4])
    assert declared == {"msgpack", "pydantic", "redis", "starlette"}
    from sys import stdlib_module_names  # noqa: PLC0415 - only here

    beyond = {"client": {"anyio", "http_sf", "httpx", "tenacity"}, "testing": {"pytest"}}
    used: dict[str, set[str]] = {}
    for path in FILES:
        used.setdefault(room(path) if room(path) in beyond else "", set()).update(
            name.split(".")[0] for name in imports(path)
        )
    for where, names in used.items():
        assert names - stdlib_module_names - {"ratelimit"} <= declared | beyond.get(where, set()), where
