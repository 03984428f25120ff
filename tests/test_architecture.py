"""The shape of the code: imports point one way, the core does no I/O, the packages are ours alone (style.md §2.3)."""

import ast
import importlib.metadata
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MANDATED = {"pyproject.toml", "README.md", "daemon", "actors", "config", "tests", "scripts"}
WELCOME = {"CHANGELOG.md", "LICENSE", "uv.lock"}
LOWER = {"config": set(), "actors": {"config"}, "daemon": {"actors", "config"}}
FORBIDDEN = {
    "asyncio", "socket", "sqlite3", "threading", "time", "random", "logging", "structlog", "nats", "aiohttp",
    "concurrent", "multiprocessing", "selectors", "ssl", "subprocess", "secrets", "uuid", "datetime", "uvloop",
    "aiomqtt",
}  # fmt: skip
OPENS_FILES = {"config/load.py", "config/document.py", "config/secret.py"}

SOURCES = sorted(path for package in LOWER for path in (ROOT / package).rglob("*.py"))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands; a relative one as its package."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, level=level):
                yield node.lineno, "." * level + (module or "")
            case ast.Call(func=ast.Name(id="__import__" | "import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield node.lineno, name


def wrong_imports(package: str, source: str) -> list[str]:
    """The imports that a file of `package` may not have, as `line: module`."""
    above = set(LOWER) - LOWER[package] - {package}
    forbidden = above | (set() if package == "daemon" else FORBIDDEN)
    return [f"{line}: {name}" for line, name in imported(source) if name.split(".")[0] in forbidden or name[0] == "."]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_package_may(path):
    assert wrong_imports(path.relative_to(ROOT).parts[0], path.read_text()) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("actors", "import asyncio"),
        ("actors", "def f():\n    from time import monotonic"),
        ("actors", "import asyncio.events as e"),
        ("actors", "from daemon.store.store import Store"),
        ("actors", "from . import group"),
        ("config", "from actors import metrics"),
        ("config", "__import__('random')"),
        ("config", "if TYPE_CHECKING:\n    from daemon import app"),
    ],
)
def test_the_rule_catches_a_planted_violation(package, source):
    assert len(wrong_imports(package, source)) == 1


@pytest.mark.parametrize("path", [p for p in SOURCES if "actors" in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_opens_no_files_and_knows_no_coroutines(path):
    tree = ast.parse(path.read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "input"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_no_cycle_of_imports_within_a_package():
    assert _in_a_cycle(_imports()) == set()


def test_no_two_rooms_of_a_package_import_each_other():
    """A room is a folder right below a package, or a file there."""
    rooms: dict[str, set[str]] = {}
    for name, targets in _imports().items():
        rooms.setdefault(_room(name), set()).update(_room(target) for target in targets)
    assert _in_a_cycle({room: targets - {room} for room, targets in rooms.items()}) == set()


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _in_a_cycle(edges: dict[str, set[str]]) -> set[str]:
    """What is left when all that imports nothing that is left is taken away, again and again."""
    while leaves := {name for name, targets in edges.items() if not targets & set(edges)}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    return set(edges)


def _imports() -> dict[str, set[str]]:
    """Which of our modules each one imports when it is imported itself."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}
    return {name: _top_level_imports(path, names) - {name} for name, path in names.items()}


def _top_level_imports(path: Path, names: dict[str, Path]) -> set[str]:
    """Our modules that are imported when this one is; what only types need does not count."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & set(names)
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(names)
            found |= submodules or ({node.module} & set(names))
    return found


@pytest.mark.parametrize("package", sorted(LOWER))
def test_a_package_has_exactly_one_owner_among_the_installed_distributions(package):
    # python-daemon, for one, would silently overwrite ours (style.md §2.1). An editable install may list itself twice.
    owners = set(importlib.metadata.packages_distributions().get(package, ["detectd"]))
    assert owners == {"detectd"}


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [path for path in SOURCES if path.stem in drawers or path.parent.name in drawers] == []


def test_the_top_level_holds_what_is_mandated_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.split("\n") if name}
    assert {name for name in top if not name.startswith(".")} - MANDATED - WELCOME == set()


def jitted(node: ast.AST) -> ast.expr | None:
    """The decorator that compiles a function."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return next((d for d in decorators if "jit" in ast.unparse(d)), None)


def kernels(*, signed: bool) -> list[tuple[str, str, ast.expr]]:
    """(file, function, decorator) of every function that numba compiles, with an explicit signature or without."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            decorator = jitted(node)
            if isinstance(node, ast.FunctionDef) and decorator is not None:
                has = isinstance(decorator, ast.Call) and bool(decorator.args)
                if has == signed:
                    found.append((str(path.relative_to(ROOT)), node.name, decorator))
    return found


@pytest.mark.parametrize(("path", "name", "decorator"), kernels(signed=True))
def test_a_kernel_is_cached_and_lets_other_threads_run(path, name, decorator):
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
    assert (options.get("nogil"), options.get("cache")) == ("True", "True"), f"{path}: {name}"


def python_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, function) of every call that the interpreter makes: those inside compiled functions are not."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if jitted(node) is None:
            todo.extend(ast.iter_child_nodes(node))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id


LAZY = {(path.removesuffix(".py").replace("/", "."), name) for path, name, _ in kernels(signed=False)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_kernels_with_an_explicit_signature_are_called_from_python(path):
    # Without one it compiles at its first call, and again for each other dtype: a stall in mid-flight (style.md §2.8).
    # A helper that only kernels call is compiled with them.
    tree = ast.parse(path.read_text())
    here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    names = {name for module, name in LAZY if module == here}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names if (node.module, alias.name) in LAZY}
    assert [(line, name) for line, name in python_calls(tree) if name in names] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_in_its_first_line_what_it_decides(path):
    text = path.read_text()
    assert not text.strip() or text.startswith('"""')
