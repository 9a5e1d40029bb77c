"""One door to the disk: nothing in the store or in provisioning changes it by other means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.store.disk import Disk

ROOT = Path(__file__).parents[3]
MODULES = sorted(path for room in ("store", "provisioning") for path in (ROOT / "runtimes" / room).rglob("*.py"))

CHANGES_OF_OS = {
    *("chmod", "chown", "copy_file_range", "fchmod", "fdatasync", "fsync", "ftruncate", "lchown", "link", "makedirs"),
    *(
        "mkdir",
        "mkfifo",
        "mknod",
        "open",
        "posix_fallocate",
        "pwrite",
        "pwritev",
        "remove",
        "removedirs",
        "removexattr",
    ),
    *("rename", "renames", "replace", "rmdir", "sendfile", "setxattr", "symlink", "truncate", "unlink", "utime"),
    *("write", "writev"),
}
CHANGES_OF_PATHS = {
    *("chmod", "hardlink_to", "link_to", "lchmod", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink"),
    *("write_bytes", "write_text"),
}
NAMES_OF_DISK = {"disk", "_disk", "store.disk", "self._disk", "self.disk", "self._store.disk"}
WHOLE_MODULES = {"shutil", "tempfile"}

EXCEPTIONS = {
    # The lock is no content: whether its file is there after a power cut makes no difference.
    ("store", "store_lock.py: os.open"),
    # A read: O_RDONLY and O_PATH.
    ("store", "regular_file.py: os.open"),
    # The child's working directory, temporary folder and request: outside the store, and gone with the provisioner.
    ("provisioning", "build_child.py: tempfile"),
    ("provisioning", "build_child.py: empty.mkdir"),
    ("provisioning", "build_child.py: temporary.mkdir"),
    # A link to the source in the child's own scratch folder.
    ("provisioning", "named.symlink_to"),
    # What the child says, into the pipe that its parent gave it.
    ("provisioning", "answer_stream.py: open"),
    ("provisioning", "answer_stream.py: os.write"),
}


def opens_for_writing(arguments: list[ast.expr]) -> bool:
    return any(set("wax+") & set(ast.unparse(argument)) for argument in arguments if isinstance(argument, ast.Constant))


def changes(tree: ast.Module) -> Iterator[str]:
    """Whatever in a module could change the disk without a Disk: `os.rename`, `path.unlink`, `shutil`, `open`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in WHOLE_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in WHOLE_MODULES:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"os.{alias.name}" for alias in node.names if alias.name in CHANGES_OF_OS)
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner == "os" and node.attr in CHANGES_OF_OS:
                yield f"os.{node.attr}"
            elif node.attr in CHANGES_OF_PATHS and owner not in NAMES_OF_DISK:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
            if opens_for_writing(node.args[1:]):
                yield "open"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # `text.replace(a, b)` and `path.replace(target)` differ in the number of arguments.
            owner = ast.unparse(node.func.value)
            if node.func.attr == "replace" and len(node.args) == 1 and not node.keywords and owner not in NAMES_OF_DISK:
                yield ast.unparse(node.func)
            if node.func.attr == "open" and owner != "os" and opens_for_writing(node.args):
                yield ast.unparse(node.func)


def unexcused(path: Path) -> set[str]:
    room = path.parent.name
    found = set(changes(ast.parse(path.read_text())))
    return {change for change in found if not {(room, change), (room, f"{path.name}: {change}")} & EXCEPTIONS}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_store_and_provisioning_change_the_disk_through_one_door(path: Path) -> None:
    if path.name not in ("disk.py", "fake_disk.py"):
        assert unexcused(path) == set()


@pytest.mark.parametrize(
    "line",
    [
        "os.rename(a, b)",
        "from os import unlink",
        "import shutil",
        "from tempfile import mkdtemp",
        "path.write_bytes(b'')",
        "Path(a).mkdir()",
        "path.replace(target)",
        "remove = path.unlink",
        "open('x', 'w')",
        "path.open('wb')",
        "os.open(path, os.O_WRONLY)",
    ],
)
def test_each_way_around_the_door_is_seen(line: str) -> None:
    assert list(changes(ast.parse(line)))


@pytest.mark.parametrize("line", ["disk.unlink(path)", "self._disk.replace(a, b)", "text.replace('a', 'b')"])
def test_the_door_itself_is_no_way_around_it(line: str) -> None:
    assert list(changes(ast.parse(line))) == []


def test_a_folder_is_made_with_all_above_it_and_each_is_durable_in_the_one_above(tmp_path: Path) -> None:
    done: list[tuple[str, str]] = []

    class Noting(Disk):
        def make_folder(self, path: Path) -> None:
            done.append(("make", path.name))
            super().make_folder(path)

        def fsync(self, descriptor: int) -> None:
            done.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
            super().fsync(descriptor)

    Noting().make_folders(tmp_path / "a" / "b")
    assert done == [("make", "a"), ("fsync", tmp_path.name), ("make", "b"), ("fsync", "a")]
    done.clear()
    Noting().make_folders(tmp_path / "a" / "b")
    assert done == []


def test_a_file_in_the_way_of_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder, found something else at"):
        Disk().make_folders(tmp_path / "file" / "engines")


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            Disk().write_new_file(tmp_path / name, b"written")
    assert (tmp_path / "a").read_bytes() == b"kept"
    assert not (tmp_path / "b").exists()


def test_what_is_removed_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "link").symlink_to(victim)
    (tree / "deep" / "file").touch()
    with pytest.raises(NotADirectoryError, match="found a symbolic link"):
        Disk().remove_tree(tree / "link")
    Disk().remove_tree(tree)
    assert not tree.exists()
    assert (victim / "kept").exists()


def test_what_cannot_be_removed_stays_alone_and_is_named(tmp_path: Path) -> None:
    class Sticky(Disk):
        def unlink(self, path: Path) -> None:
            if path.name == "b":
                raise OSError(5, "Input/output error", str(path))
            super().unlink(path)

    tree = tmp_path / "tree"
    tree.mkdir()
    for name in "abc":
        (tree / name).touch()
    with pytest.raises(OSError, match=r"Input/output error: .*/b"):
        Sticky().remove_tree(tree)
    assert [path.name for path in tree.iterdir()] == ["b"]
