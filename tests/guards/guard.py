"""What a guard is: the lines that hold one of the guarantees, what is left without them, and the tests that notice."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Guard(NamedTuple):
    """`text` is there once in the file `path` and is what holds the guarantee of that number; `gone` is the same place
    without it. Each of `tests`, a path below tests/ and a test's name, fails there.
    """

    guarantee: int
    name: str
    path: str
    text: str
    gone: str
    tests: tuple[str, ...]

    def source(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")

    def mutated(self) -> str:
        """The file without the guard. Raises ValueError where the guard is not there exactly once."""
        source = self.source()
        if source.count(self.text) != 1:
            raise ValueError(
                f"guard {self.name}: expected its text once in {self.path}, found it {source.count(self.text)} times."
                " Where the code has changed, write down what the guard is now"
            )
        return source.replace(self.text, self.gone)

    def place(self) -> str:
        """The function or the class that the guard's first word is in, as `Class.function`."""
        source = self.source()
        at = source.index(self.text)
        line = source.count("\n", 0, at + len(self.text) - len(self.text.lstrip())) + 1
        found: list[str] = []
        node: ast.AST = ast.parse(source)
        while node is not None:
            inner = [
                each
                for each in ast.iter_child_nodes(node)
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and each.lineno <= line <= (each.end_lineno or 0)
            ]
            if not inner:
                break
            node = inner[0]
            found.append(inner[0].name)
        return ".".join(found)
