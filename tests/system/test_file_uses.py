"""One file, one use: files are identified by what they are."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.errors import UsageError
from blkmig_cli.system.file_uses import FileUses

#: Makes another name of a file, or a descriptor of it.
Alias = Callable[[Path], "str | int"]


def same(path: Path) -> str:
    return str(path)


def dotted(path: Path) -> str:
    return f"{path.parent}/./{path.name}"


def through_parent(path: Path) -> str:
    (path.parent / "folder").mkdir()
    return f"{path.parent}/folder/../{path.name}"


def relative(path: Path) -> str:
    return os.path.relpath(path)


def hard_link(path: Path) -> str:
    (path.parent / "hard").hardlink_to(path)
    return str(path.parent / "hard")


def symlink(path: Path) -> str:
    (path.parent / "soft").symlink_to(path.name)
    (path.parent / "softer").symlink_to("soft")
    return str(path.parent / "softer")


def linked_folder(path: Path) -> str:
    (path.parent / "linked").symlink_to(".")
    return str(path.parent / "linked" / path.name)


def descriptor(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def named_descriptor(path: Path) -> str:
    return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"


NAMES: list[Alias] = [same, dotted, through_parent, relative, linked_folder, symlink]
DESCRIPTORS: list[Alias] = [hard_link, descriptor, named_descriptor]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    return tmp_path / "file"


@pytest.mark.parametrize("alias", [*NAMES, *DESCRIPTORS])
@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_file_that_is_written_has_one_use(
    alias: Alias, first: bool, second: bool, swapped: bool, file: Path
) -> None:
    names: list[str | int] = [str(file), alias(file)]
    if swapped:
        names.reverse()
    uses = FileUses()
    uses.add("the stream", names[0], writes=first)
    with pytest.raises(UsageError, match=r"the stream \(.*\) and the target \(.*\) are the same"):
        uses.add("the target", names[1], writes=second)


@pytest.mark.parametrize("alias", [*NAMES, *DESCRIPTORS])
def test_files_that_are_only_read_may_be_the_same(alias: Alias, file: Path) -> None:
    uses = FileUses()
    uses.add("the first stream", str(file), writes=False)
    uses.add("the second stream", alias(file), writes=False)
    with pytest.raises(UsageError, match="first stream"):
        uses.add("the target", str(file), writes=True)


@pytest.mark.parametrize("alias", NAMES)
def test_a_file_that_does_not_exist_is_known_by_its_place(alias: Alias, tmp_path: Path) -> None:
    path = tmp_path / "new"
    uses = FileUses()
    uses.add("the image", str(path), writes=True)
    with pytest.raises(UsageError, match="same file"):
        uses.add("the target", alias(path), writes=True)
    uses.add("the target", f"{path}er", writes=True)


def test_a_file_made_or_replaced_in_between_is_known(file: Path) -> None:
    new = file.with_name("new")
    uses = FileUses()
    uses.add("the image", str(new), writes=True)
    uses.add("the stream", str(file), writes=False)
    new.write_bytes(b"")
    os.replace(new, file)
    for name in (str(file), str(new)):
        with pytest.raises(UsageError, match="same file"):
            uses.add("the target", name, writes=True)


def test_a_place_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    uses = FileUses()
    uses.add("the image", f"{tmp_path}/none/x", writes=True)
    with pytest.raises(UsageError, match="same file"):
        uses.add("the target", f"{tmp_path}/none/./x", writes=True)


def test_different_files_are_different(file: Path) -> None:
    uses = FileUses()
    for number in range(3):
        path = file.with_name(f"{number}")
        path.write_bytes(b"content")
        uses.add(f"file {number}", str(path), writes=True)
    uses.add("a deleted file", descriptor(file), writes=True)
    file.unlink()
    file.write_bytes(b"")
    uses.add("a file of the same name", descriptor(file), writes=True)


def test_the_standard_descriptors_have_names(file: Path) -> None:
    saved = os.dup(0)
    try:
        os.dup2(os.open(file, os.O_RDONLY), 0)
        uses = FileUses()
        uses.add("the stream", 0, writes=False)
        with pytest.raises(UsageError) as error:
            uses.add("the image of 'd'", str(file), writes=True)
    finally:
        os.dup2(saved, 0)
    found = f"the stream (stdin) and the image of 'd' ({file}) are the same file"
    assert str(error.value) == found


def test_pipes_and_character_devices_do_not_count(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ours, theirs = socket.socketpair()
    reading, _ = os.pipe()
    _, terminal = os.openpty()
    with ours, theirs:
        for file in (str(fifo), reading, ours.fileno(), "/dev/null", terminal, 99999):
            uses = FileUses()
            for use in ("the stream", "the target"):
                uses.add(use, file, writes=True)


def test_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    uses = FileUses()
    uses.add("the image", f"{tmp_path}/a\nb", writes=True)
    with pytest.raises(UsageError) as error:
        uses.add("the target", f"{tmp_path}/a\nb", writes=True)
    assert "\n" not in str(error.value)


def test_circular_links_and_too_long_names_are_left_to_whoever_opens_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "x" * 300):
        FileUses().add("the stream", str(tmp_path / name), writes=False)


@pytest.mark.skipif(not Path("/dev/loop0").is_block_device(), reason="needs a block device")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_block_device_is_known_by_its_number(tmp_path: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | 0o060000, os.stat("/dev/loop0").st_rdev)
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    uses = FileUses()
    uses.add("the image of 'a'", "/dev/loop0", writes=True)
    with pytest.raises(UsageError, match="same file"):
        uses.add("the image of 'b'", str(node), writes=True)
