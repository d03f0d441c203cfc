"""The house stands: arrows point down, nothing runs in circles, files stay small, no module holds mutable state."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
MAX_LINES = 500

LAYERS: dict[str, int] = {
    # 5: surfaces, clients of the app; nothing imports them
    **dict.fromkeys(("cli", "gateway", "console", "contrib", "celery", "__main__", "demo"), 5),
    # 4: the only places that pick engines: the app, and the broker; `__init__` exports what users name
    **dict.fromkeys(("__init__", "app", "config", "configured", "connected", "opening", "server"), 4),
    # 1: contracts
    **dict.fromkeys(
        (
            "broker",
            "dispatch",
            "backend",
            "coordinator",
            "engine",
            "apart",
            "commit",
            "enlist",
            "pool",
            "middleware",
            "protocol",
        ),
        1,
    ),
    # 0: values, pure
    **dict.fromkeys(("message", "queue", "outcome", "effects", "delivery", "retry", "clock", "errors", "durations"), 0),
    **dict.fromkeys(("limiting", "guarding", "shedding", "draining", "on_full"), 0),
    **dict.fromkeys(("codec", "schedules", "events", "spelling", "blocking", "public_ids", "outcome_runs"), 0),
}
"""The layer of each top-level name; what is not here and not below is runtime: 3."""
ENGINES = frozenset({"engines", "pools"})
"""Layer 2, which the runtime never imports, nor is imported by."""
SHARED = frozenset({"engines.network", "engines.presence"})
"""What engines share. It knows no server, and imports no engine."""
RUNTIME, IMPLEMENTATIONS = 3, 2
TESTING = "testing"
"""Beside the layers: it may import values and contracts, and nobody imports it but the root and the surfaces."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


def top(module: str) -> str:
    """The name below `penstock` that decides the layer."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def layer(module: str) -> int:
    return IMPLEMENTATIONS if top(module) in ENGINES else LAYERS.get(top(module), RUNTIME)


@cache
def imports(module: str) -> dict[str, int]:
    """The modules of the package that `module` imports when it runs, inside functions too, each with a line."""
    found: dict[str, int] = {}
    for node in runtime_nodes(tree(module)):
        for name in imported_names(module, node):
            target = longest_module(name)
            if target is not None and target != module:
                found.setdefault(target, node.lineno)  # type: ignore[attr-defined]  # only statements name imports
    return found


def runtime_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(root):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imported_names(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def longest_module(name: str) -> str | None:
    """The module that a dotted name is, or is in; `None` outside of the package."""
    parts = name.split(".")
    while parts and parts[0] == "penstock":
        if ".".join(parts) in modules():
            return ".".join(parts)
        parts.pop()
    return None


def wrong_arrow(source: str, target: str) -> str | None:
    """Why `source` must not import `target`."""
    if top(source) == TESTING:
        return None if top(target) == TESTING or layer(target) <= 1 else "testing/ may import values and contracts only"
    if top(target) == TESTING:
        return None if layer(source) >= 4 else "only the root and the surfaces may import testing/"
    if {layer(source), layer(target)} == {RUNTIME, IMPLEMENTATIONS}:
        return "runtime and engines never import each other"
    folders = [".".join(module.split(".")[1:3]) for module in (source, target)]
    if layer(source) == layer(target) == IMPLEMENTATIONS and folders[0] != folders[1] and folders[1] not in SHARED:
        return "an engine holds all that is known about one server, and imports no other"
    if layer(source) == layer(target) == 5 and top(source) != top(target):
        return "nothing imports a surface, not even another one"
    return None if layer(target) <= layer(source) else f"layer {layer(source)} imports layer {layer(target)}"


def test_arrows_point_down() -> None:
    wrong = [
        f"{source}:{line} imports {target}: {why}"
        for source in modules()
        for target, line in imports(source).items()
        if (why := wrong_arrow(source, target))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("penstock.message", "penstock.broker"),
        ("penstock.broker", "penstock.client"),
        ("penstock.worker.run", "penstock.engines.sqlite.store"),
        ("penstock.engines.sqlite.store", "penstock.client"),
        ("penstock.pools.threads", "penstock.worker.run"),
        ("penstock.engines.sqlite.store", "penstock.engines.memory.store"),
        ("penstock.client", "penstock.app"),
        ("penstock.app", "penstock.cli.main"),
        ("penstock.cli.main", "penstock.gateway.server"),
        ("penstock.testing.conformance.kit", "penstock.engines.memory"),
        ("penstock.worker.run", "penstock.testing"),
        ("penstock.app", "penstock.contrib.rehearsal"),
        ("penstock.testing.conformance.kit", "penstock.contrib.clock"),
    ],
)
def test_wrong_arrows_are_seen(source: str, target: str) -> None:
    assert wrong_arrow(source, target)


def test_right_arrows_are_allowed() -> None:
    for source, target in (
        ("penstock.broker", "penstock.message"),
        ("penstock.worker.run", "penstock.client"),
        ("penstock.app", "penstock.engines.sqlite"),
        ("penstock.engines.memory.handle", "penstock.engines.memory.store"),
        ("penstock.cli.main", "penstock.app"),
        ("penstock.testing.conformance.kit", "penstock.broker"),
        ("penstock.contrib.pytest", "penstock.contrib.rehearsal"),
        ("penstock.contrib.rehearsal", "penstock.worker.alone"),
    ):
        assert wrong_arrow(source, target) is None, (source, target)


def test_only_the_plugin_knows_pytest() -> None:
    """It is no dependency; and the plugin, which every run of pytest loads, imports the rest when a test asks."""
    assert [module for module in modules() if "pytest" in foreign(module)] == ["penstock.contrib.pytest"]
    assert not [node for node in tree("penstock.contrib.pytest").body if "penstock" in foreign_name(node)]


def foreign(module: str) -> set[str]:
    """The packages that `module` imports, by their first name."""
    return {foreign_name(node) for node in ast.walk(tree(module))}


def foreign_name(node: ast.AST) -> str:
    if isinstance(node, ast.Import):
        return node.names[0].name.partition(".")[0]
    return (node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom) else ""


def cycles(graph: dict[str, list[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for successor in graph[node]:
            if successor not in order:
                visit(successor)
                low[node] = min(low[node], low[successor])
            elif successor in stack:
                low[node] = min(low[node], order[successor])
        if low[node] == order[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def test_no_import_cycles() -> None:
    found = cycles({module: list(imports(module)) for module in modules()})
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_cycles_are_seen() -> None:
    assert cycles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["a", "b", "c"]]
    assert cycles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_files_stay_small() -> None:
    long = {
        module: lines
        for module, path in modules().items()
        if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert not long


MUTABLE_CALLS = frozenset(
    {"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "ChainMap"}
    | {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "local", "Lock", "RLock", "Condition", "Event"}
)
MUTATING_METHODS = frozenset(
    {"append", "add", "update", "pop", "popitem", "clear", "extend", "insert", "remove", "discard", "setdefault"}
    | {"appendleft", "popleft", "sort", "reverse"}
)


def mutable_state(root: ast.Module) -> list[str]:
    """What of a module could remember something between two calls: `global`s, and containers that may be changed.

    A container under a CONSTANT name is a table, if nothing in the module changes it.
    """
    found = [
        f"line {node.lineno}: global {', '.join(node.names)}" for node in ast.walk(root) if isinstance(node, ast.Global)
    ]
    containers: dict[str, int] = {}
    for statement in root.body:
        if (
            isinstance(statement, ast.Assign | ast.AnnAssign)
            and statement.value is not None
            and is_mutable(statement.value)
        ):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            containers |= {one.id: statement.lineno for one in targets if isinstance(one, ast.Name)}
    containers.pop("__all__", None)
    found += [
        f"line {line}: {name} is mutable"
        for name, line in containers.items()
        if name.lstrip("_") != name.lstrip("_").upper()
    ]
    found += [f"line {line}: {name} is changed" for name, line in changes(root) if name in containers]
    return found


def is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in MUTABLE_CALLS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def changes(root: ast.Module) -> Iterator[tuple[str, int]]:
    """Names that are stored into by item, or changed by a method, with the line."""
    for node in ast.walk(root):
        stored = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
        called = isinstance(node, ast.Attribute) and node.attr in MUTATING_METHODS
        if (stored or called) and isinstance(node.value, ast.Name):  # type: ignore[attr-defined]  # both kinds have one
            yield node.value.id, node.lineno  # type: ignore[attr-defined]  # both kinds have one


def test_no_module_level_mutable_state() -> None:
    found = {module: state for module in modules() if (state := mutable_state(tree(module)))}
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "cache = {}",
        "_seen: set[str] = set()",
        "import weakref\n_apps = weakref.WeakValueDictionary()",
        "TABLE = {}\ndef f(): TABLE['x'] = 1",
        "TABLE = []\ndef f(): TABLE.append(1)",
        "x = None\ndef f():\n    global x\n    x = 1",
    ],
)
def test_mutable_state_is_seen(source: str) -> None:
    assert mutable_state(ast.parse(source))


def test_tables_are_no_state() -> None:
    assert not mutable_state(
        ast.parse("TABLE = {'a': 1}\n_NAMES = ['a']\n__all__ = ['a']\nx = 1\ny = (1, 2)\ndef f(): z = []; z.append(1)")
    )


def test_type_checking_imports_do_not_count() -> None:
    source = ast.parse("if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    import c")
    assert [node.names[0].name for node in runtime_nodes(source) if isinstance(node, ast.Import)] == ["b", "c"]
