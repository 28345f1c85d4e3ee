"""The layers of the package: a module imports only from its own package and from lower layers."""

import ast
import gc
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent / "ratelimit"
LAYERS = [
    ["errors", "clock"],
    ["_utils"],
    ["model"],
    ["config", "algorithms"],
    ["resolver", "stores"],
    ["enforcement", "controls"],
    ["limiter_core"],
    ["limiter"],
    ["asgi", "outbound", "blocking", "telemetry"],
    ["client", "testing", "inspection", "rehearsal"],
    ["console"],
    ["cli"],
    ["__init__", "__main__"],
]
"""From the lowest to the highest. Packages of one layer do not import each other."""

FORBIDDEN = {
    "client": {"limiter", "asgi", "stores", "enforcement", "resolver", "config", "controls"},
    "enforcement": {"config", "resolver"},
    "controls": {"enforcement"},
    "stores": {"config"},
    "resolver": {"stores"},
    "limiter": {"asgi", "outbound"},
    "limiter_core": {"asgi", "outbound"},
}
"""What a package does not import although it is lower."""

THIRD_PARTY = {
    "errors": set(),
    "clock": set(),
    "_utils": set(),
    "model": set(),
    "algorithms": set(),
    "config": {"pydantic", "pydantic_core"},
    "resolver": set(),
    "stores": {"redis", "msgpack"},
    "enforcement": set(),
    "controls": set(),
    "limiter": set(),
    "limiter_core": set(),
    "asgi": {"starlette", "pydantic", "fastapi"},
    "outbound": set(),
    "blocking": set(),
    "telemetry": {"prometheus_client", "opentelemetry"},
    "client": {"anyio", "http_sf", "httpx", "tenacity"},
    "testing": {"pytest"},
    "inspection": {"pydantic"},
    "rehearsal": set(),
    "console": {"jinja2", "markupsafe", "starlette"},
    "cli": {"click", "pydantic", "rich", "starlette", "uvicorn"},
    "__main__": {"click", "rich"},
    "__init__": set(),
}
"""The packages of others that each package of ours imports."""

LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
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
            assert node.level == 0, "relative imports hide the layer"
            found.append(node.module or "")
    return found


def package(path: Path) -> str:
    """Return the package or root module that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    """A module imports from lower layers and from its own package, and never the package root."""
    here = package(path)
    for name in imports(path):
        if name.split(".")[0] != "ratelimit":
            continue
        assert name != "ratelimit", "imports the package root"
        there = name.split(".")[1]
        assert here == there or LAYER[there] < LAYER[here], f"{here} imports {there}"
        assert there not in FORBIDDEN.get(here, set()), f"{here} imports {there}"


def test_every_package_has_a_layer() -> None:
    """The table names every package and root module."""
    assert {package(path) for path in FILES} == LAYER.keys() == THIRD_PARTY.keys()


def test_there_are_no_circles() -> None:
    """No module imports itself over others, at any length."""
    known = {module(path) for path in FILES}
    edges = {module(path): {name for name in imports(path) if name in known} for path in FILES}

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += edges[name]
        return found

    assert [name for name in sorted(known) if name in reachable(name)] == []


def test_third_party_imports() -> None:
    """Each package imports the packages of others that the table allows, and no more."""
    from sys import stdlib_module_names  # noqa: PLC0415 - only here

    used: dict[str, set[str]] = {name: set() for name in LAYER}
    for path in FILES:
        used[package(path)] |= {name.split(".")[0] for name in imports(path)}
    for name, modules in used.items():
        assert modules - stdlib_module_names - {"ratelimit"} == THIRD_PARTY[name], name


def test_only_stores_redis_imports_redis() -> None:
    """Redis and msgpack stay in one folder."""
    users = {path.parent for path in FILES for name in imports(path) if name.split(".")[0] in ("redis", "msgpack")}
    assert users == {ROOT / "stores" / "redis"}


def test_only_the_clock_reads_the_time() -> None:
    """Instants are arguments everywhere else."""
    assert {path.name for path in FILES if "time" in imports(path)} == {"clock.py"}
    assert not [path for path in FILES if re.search(r"\.(now|utcnow|today)\(", path.read_text())]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function's body, without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1


def test_functions_and_files_are_short() -> None:
    """No function over 35 lines, half of them at most 6, no file over 300, at most 6 modules in the root."""
    sizes = {}
    for path in FILES:
        assert path.read_text().count("\n") <= 300, path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                sizes[f"{path.relative_to(ROOT)}:{node.name}:{node.lineno}"] = body_lines(node)
    assert {name: size for name, size in sizes.items() if size > 35} == {}
    assert median(sizes.values()) <= 6
    assert len([path for path in ROOT.glob("*.py") if path.name != "__main__.py"]) <= 6


def test_public_names_have_docstrings() -> None:
    """Every public class and function outside of tests says what it promises."""
    public, documented = 0, 0
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                public += 1
                documented += ast.get_docstring(node) is not None
    assert documented / public >= 0.95


def test_every_module_has_a_test() -> None:
    """A module has a test file of its name, or a test file names it in its docstring (`client.base_transport`)."""
    unit = ROOT.parent / "tests" / "unit"
    docstrings = "".join(ast.get_docstring(tree(path)) or "" for path in sorted(unit.parent.rglob("test_*.py")))
    missing = []
    for path in FILES:
        where = path.relative_to(ROOT)
        name = ".".join(where.with_suffix("").parts)
        if path.stem != "__init__" and f"`{name}`" not in docstrings:
            missing += [name] * (not (unit / where.parent / f"test_{path.stem}.py").exists())
    assert missing == []


PLAIN = re.compile(r"\b(told|nobody|whoever|somebody|anew)\b", re.IGNORECASE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_names_its_actor(path: Path) -> None:
    """Docstrings, comments and messages name the caller, the worker or the store."""
    assert not PLAIN.findall(path.read_text())


def test_declared_dependencies_are_those_that_are_imported() -> None:
    """`dependencies` names exactly what the core imports."""
    text = (ROOT.parent / "pyproject.toml").read_text()
    core = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert core is not None
    assert set(re.findall(r'"([a-z]+)', core[1])) == {"msgpack", "pydantic", "redis", "starlette"}
