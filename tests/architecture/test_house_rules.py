"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("messages", "runtimes", "telemetry", "actors")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = (*PACKAGES, "tests", "examples", "benchmarks", "docs", ".ci")
TEXTS = [
    path
    for path in (*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
    if path.is_file() and path.suffix in {".py", ".md", ".toml", ".json", ".txt", ".service", ".html", ""}
]

LINES_MAX = 300
VAGUE_NAMES = {"util", "helper", "manager", "base", "common", "misc"}
# Each spelled so that it does not match itself.
OWN_MACHINE = re.compile(r"/(?:wor[k]|roo[t]|Users/\w+|home/\w+)/")
PACKAGE_INDEX = re.compile(r"https?://[\w.-]*(?:pyp[i]|pythonhoste[d]|download\.pytorc[h])")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_package_says_that_it_is_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_no_module_is_too_long_to_know_one_thing() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: lines for path, lines in lengths.items() if lines > LINES_MAX} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    words = {relative(path): re.split(r"[_/.]", relative(path)) for path in MODULES}
    assert [path for path, parts in words.items() if VAGUE_NAMES & {part.rstrip("s") for part in parts}] == []


def test_every_module_opens_with_what_it_is() -> None:
    assert [relative(path) for path in MODULES if not path.read_text().startswith('"""')] == []


def test_no_file_names_a_machine_or_a_package_index() -> None:
    texts = {relative(path): path.read_text(errors="replace") for path in TEXTS}
    assert [path for path, text in texts.items() if OWN_MACHINE.search(text) or PACKAGE_INDEX.search(text)] == []


def test_every_package_is_mirrored_by_its_tests() -> None:
    assert [package for package in PACKAGES if not any((ROOT / "tests" / package).rglob("test_*.py"))] == []
