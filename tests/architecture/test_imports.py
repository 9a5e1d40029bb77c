"""Imports point one way, and importing us costs nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("messages", "runtimes", "telemetry", "actors")
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
HEAVY = {"torch", "onnxruntime", "tensorrt", "polygraphy", "pynvml", "onnx", "sklearn", "scipy", "PIL", "jtop"}
NOT_SHIPPED = {"tests", "examples", "benchmarks"}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "multiprocessing"}

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if "." not in name))
"""


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names of everything that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def modules_importing(forbidden: set[str]) -> list[str]:
    return [p for p, tree in TREES.items() if forbidden & {name.partition(".")[0] for name in imported_names(tree)}]


def test_the_import_contracts_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cli = pytest.importorskip("importlinter.cli", reason="import-linter comes with the extra `dev`")
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_every_module_of_a_package_loads_no_heavy_library(package: str) -> None:
    result = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", IMPORT_ALL, package], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert HEAVY & set(result.stdout.split()) == set()


def test_no_module_imports_what_is_not_shipped() -> None:
    assert modules_importing(NOT_SHIPPED) == []


def test_no_module_imports_anything_that_unpickles() -> None:
    assert modules_importing(UNPICKLING) == []


def test_no_module_lets_numpy_unpickle() -> None:
    keywords = ((p, node) for p, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.keyword))
    assert [p for p, node in keywords if node.arg == "allow_pickle" and ast.unparse(node.value) != "False"] == []


def test_imports_are_absolute_so_that_what_is_seen_is_what_is_imported() -> None:
    assert [p for p, tree in TREES.items() if any(name.startswith(".") for name in imported_names(tree))] == []


def test_a_package_init_only_re_exports() -> None:
    for path, tree in TREES.items():
        if not path.endswith("__init__.py"):
            continue
        for node in tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert docstring or exports or isinstance(node, ast.ImportFrom), f"{path}: {ast.unparse(node)}"
