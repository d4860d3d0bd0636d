"""Imports point one way: command line -> roles -> concepts -> values -> errors -> standard library.

Who may import whom is written down here as data. Imports within functions count too, where it is said.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lognot

SOURCE = Path(lognot.__file__).parent
MODULES = {path.stem: ast.parse(path.read_bytes()) for path in SOURCE.glob("*.py")}

# Every module stands in one layer, and imports from its own and lower ones only.
LAYERS: tuple[tuple[str, set[str]], ...] = (
    ("entry", {"__main__"}),
    ("command line", {"cli"}),
    ("commands", {"start", "trial"}),
    ("roles", {"supervisor", "monitor", "executor", "launcher"}),
    (
        "parts of a role",
        {
            "anchors",
            "catalogue",
            "check",
            "children",
            "config",
            "continuity",
            "dispatch",
            "executors",
            "files",
            "guard",
            "keeper",
            "launched",
            "logs",
            "notes",
            "quota",
            "renames",
            "report",
            "resuming",
            "rule",
            "streams",
            "unseen",
            "watchdog",
        },
    ),
    (
        "concepts",
        {"action", "budget", "channel", "frequency", "ini", "items", "journal", "ledger", "linger", "lint"}
        | {
            "dialect",
            "literals",
            "loop",
            "mounts",
            "moves",
            "opening",
            "options",
            "outlet",
            "output",
            "pattern",
            "peer",
            "pcre2",
            "prefilter",
            "quoting",
            "privileges",
            "process",
            "roll",
            "rotated",
            "sandbox",
            "scan",
            "service",
            "size",
            "sources",
            "startmark",
            "state",
            "tail",
            "trust",
            "watch",
        },
    ),
    ("values", {"messages", "settings", "shown", "users", "wire"}),
    ("errors", {"__init__", "errors"}),
)
LAYER_OF = {name: number for number, (_, names) in enumerate(LAYERS) for name in names}

ROLES = {"supervisor", "monitor", "executor", "launcher"}
ENGINES = {"pattern", "pcre2", "scan", "rule"}  # what knows a regex engine

# Pure modules: nothing of the world outside but what is named here.
PURE = {
    "action": set(),
    "anchors": {"time"},
    "budget": set(),
    "catalogue": set(),
    "dialect": set(),
    "errors": {"errno"},
    "frequency": {"hashlib", "_blake2"},
    "ini": set(),
    "lint": set(),
    "literals": set(),
    "items": {"difflib"},
    "messages": set(),
    "moves": set(),
    "options": set(),
    "output": set(),
    "prefilter": set(),
    "quoting": set(),
    "rule": set(),
    "scan": {"functools", "time"},  # what a search takes is measured where it is made
    "settings": {"_blake2", "json"},
    "shown": set(),
    "size": set(),
    "state": {"_blake2", "json"},
    "wire": {"os"},  # for what a wait status means
}
HARMLESS = {
    "__future__",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "itertools",
    "re",
    "struct",
    "typing",
}


def imports(tree: ast.AST, *, within_functions: bool = False) -> Iterator[str]:
    """The full names that a module imports; from its functions too, if wanted."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from (name.name for name in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                # `from lognot import x` is about x, `from lognot.x import y` about x as well.
                yield from (f"{module}.{name.name}" for name in node.names)
            case ast.ImportFrom():
                raise AssertionError("relative import")
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.FunctionDef() | ast.Lambda() if not within_functions:
                continue
            case _:
                yield from imports(node, within_functions=within_functions)


def siblings(module: str, *, within_functions: bool = False) -> set[str]:
    """The modules of lognot that a module imports."""
    found = set()
    for name in imports(MODULES[module], within_functions=within_functions):
        package, _, rest = name.partition(".")
        if package == "lognot":
            sibling = rest.partition(".")[0]
            found.add(sibling if sibling in MODULES else "__init__")
    return found


def reached(module: str) -> set[str]:
    """Everything of lognot that is loaded with a module."""
    found, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= siblings(name) - found
    return found


def test_every_module_has_its_layer() -> None:
    assert set(LAYER_OF) == set(MODULES)
    assert sum(len(names) for _, names in LAYERS) == len(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downwards(module: str) -> None:
    upwards = {
        other for other in siblings(module, within_functions=True) if LAYER_OF[other] < LAYER_OF[module]
    }
    assert not upwards


def test_there_is_no_circle() -> None:
    for module in MODULES:
        for other in siblings(module):
            assert module not in reached(other), f"{module} and {other} import each other"


@pytest.mark.parametrize("role", sorted(ROLES))
def test_roles_never_import_each_other(role: str) -> None:
    assert not (siblings(role, within_functions=True) & ROLES - {role})
    assert not (reached(role) & ROLES - {role})


def test_only_commands_know_the_roles() -> None:
    for module in MODULES:
        if siblings(module, within_functions=True) & ROLES:
            assert module == "start", f"{module} imports a role"


def test_the_supervisor_loads_no_regex_engine() -> None:
    assert not reached("supervisor") & ENGINES
    assert not reached("executor") & ENGINES
    assert not reached("start") & (ENGINES | ROLES - {"supervisor"})


def test_only_the_monitor_has_the_filter() -> None:
    """What it is made with is loaded by `start`, before the fork."""
    assert [module for module in MODULES if "sandbox" in siblings(module, within_functions=True)] == [
        "monitor",
        "start",
    ]
    assert "seccomp" not in {name.partition(".")[0] for name in imports(MODULES["sandbox"])}


def test_the_engines_are_loaded_by_who_compiles_a_pattern_only() -> None:
    """So that preparing the monitor's code before a fork gives the supervisor none."""
    for module, tree in MODULES.items():
        names = {name.partition(".")[0] for name in imports(tree)}
        assert "pcre" not in names, module
        assert "pcre2" not in siblings(module), module


def test_only_one_module_each_knows_a_foreign_package() -> None:
    owners = {
        "pyinotify.": "watch",
        "pcre.": "pattern",
        "systemd.daemon": "service",
        "sdnotify.": "service",
        "seccomp.": "sandbox",
    }
    for module, tree in MODULES.items():
        for name in imports(tree, within_functions=True):
            if name.partition(".")[0] not in {"lognot", *sys.stdlib_module_names}:
                owner = next((owners[known] for known in owners if f"{name}.".startswith(known)), None)
                assert owner == module, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_touch_nothing(module: str) -> None:
    for name in imports(MODULES[module], within_functions=True):
        package = name.partition(".")[0]
        if package == "lognot":
            continue
        assert package in HARMLESS | PURE[module], f"{module} imports {name}"


def test_nothing_dangerous_is_imported_anywhere() -> None:
    never = {"pickle", "marshal", "shelve", "asyncio", "threading", "multiprocessing", "subprocess"}
    for module, tree in MODULES.items():
        packages = {name.partition(".")[0] for name in imports(tree, within_functions=True)}
        assert not packages & never, module
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"eval", "exec", "compile", "__import__"}, module


def test_only_the_command_line_exits() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit":
                assert module in ("cli", "__main__"), module
