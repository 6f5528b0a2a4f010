"""Files that are replaced in one step: modes, owners, links, neighbours, and interruptions."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from blkmig_cli.disks.new_image import create_partial
from blkmig_cli.errors import FailureError, Interruption
from blkmig_cli.system.atomic import check_neighbour, replacing

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def put(path: Path, content: bytes = b"new") -> None:
    with replacing(str(path)) as fd:
        os.write(fd, content)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027, 0o000])
def test_a_new_file_gets_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        put(tmp_path / "f")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~mask
    assert names(tmp_path) == {"f"}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o666, 0o444, 0o755])
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int, mask: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(mode)
    with umask(mask), replacing(str(path)) as fd:
        # Until it is there, nobody else reads it.
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        os.write(fd, b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert names(tmp_path) == {"f"}


@as_root
def test_a_file_keeps_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    path.chmod(0o6750)
    put(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o6750)


def set_acl(path: Path) -> bytes:
    """Let user 1000 read and write, and the file's group nothing, in a mode that looks like 0660."""
    entries = [(1, 6, 0), (2, 6, 1000), (4, 0, 0), (16, 6, 0), (32, 0, 0)]  # linux/posix_acl.h
    acl = struct.pack("<I", 2)
    for tag, permissions, name in entries:
        acl += struct.pack("<HHI", tag, permissions, name if tag == 2 else 0xFFFFFFFF)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    return acl


def test_a_file_keeps_its_acl(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    acl = set_acl(path)
    put(path)
    assert path.read_bytes() == b"new"
    assert os.getxattr(path, "system.posix_acl_access") == acl
    with closing(create_partial(str(tmp_path / "f.partial"), str(path))):
        assert os.getxattr(tmp_path / "f.partial", "system.posix_acl_access") == acl


def test_permissions_of_an_acl_that_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's group does not get what the list gave to others."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    set_acl(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    put(path)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("refused", "mode", "expected"),
    [("group", 0o664, 0o604), ("owner", 0o4755, 0o755), ("both", 0o6770, 0o700)],
)
def test_permissions_of_an_owner_or_group_that_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, mode: int, expected: int
) -> None:
    """The permissions of another group or a setuid program are not given to ours."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(mode)
    real = os.stat

    def other(name: "str | int", *, follow_symlinks: bool = True) -> os.stat_result:
        found = real(name, follow_symlinks=follow_symlinks)
        if name != str(path):
            return found
        values = list(found)
        values[4] += refused in ("owner", "both")
        values[5] += refused in ("group", "both")
        return os.stat_result(values)

    def chown(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", other)
    monkeypatch.setattr(os, "fchown", chown)
    put(path)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.lstat().st_mode) == expected


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "real").write_bytes(b"old")
    (folder / "real").chmod(0o600)
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("folder/real")
    with replacing(str(tmp_path / "first")) as fd:
        os.write(fd, b"new")
        assert names(tmp_path) == {"first", "second", "folder"}
        assert len(names(folder)) == 2
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert (folder / "real").read_bytes() == b"new"
    assert stat.S_IMODE((folder / "real").stat().st_mode) == 0o600
    assert names(folder) == {"real"}


def test_a_symlink_to_a_file_that_does_not_exist_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/real")
    put(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes() == b"new"


def test_another_hard_link_keeps_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "g").hardlink_to(tmp_path / "f")
    put(tmp_path / "f")
    assert (tmp_path / "g").read_bytes() == b"old"


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def deleted(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    path.symlink_to(f"/proc/self/fd/{os.open(other, os.O_RDONLY)}")
    other.unlink()


def symlink(path: Path) -> None:
    path.with_name("victim").write_bytes(b"old")
    path.symlink_to("victim")


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def hard_link(path: Path) -> None:
    path.with_name("victim").write_bytes(b"old")
    path.hardlink_to(path.with_name("victim"))


Make = Callable[[Path], None]


@pytest.mark.parametrize("make", [folder, fifo, unix_socket, circle, deleted])
def test_only_regular_files_are_replaced(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "f"
    make(path)
    before = os.lstat(path)
    with pytest.raises(FailureError, match="/f: "):
        put(path)
    assert os.path.samestat(os.lstat(path), before)
    assert names(tmp_path) == {"f"}


@pytest.mark.parametrize("name", ["no/f", "no/", "", "f/g", "x" * 300])
def test_places_where_no_file_can_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(FailureError):
        put(Path(str(tmp_path)) / name) if name != "no/" else replace_text(f"{tmp_path}/no/")
    assert names(tmp_path) == {"f"}


def replace_text(path: str) -> None:
    with replacing(path):
        pass


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [Stop(), KeyboardInterrupt(), Interruption(15), FailureError("x")]
)
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_left_of_a_file_that_is_not_finished(
    tmp_path: Path, error: BaseException, there: bool
) -> None:
    path = tmp_path / "f"
    if there:
        path.write_bytes(b"old")

    def stopped() -> None:
        with replacing(str(path)) as fd:
            os.write(fd, b"new")
            raise error

    with pytest.raises(type(error)):
        stopped()
    assert names(tmp_path) == ({"f"} if there else set())
    assert not there or path.read_bytes() == b"old"


CALLS = ["open", "fchmod", "fsync", "replace"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_a_call_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    """Whenever the signal comes, the file is the old one or the new one, and nothing else is left."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    real = getattr(os, call)

    def interrupted(*args: object, **more: object) -> object:
        monkeypatch.setattr(os, call, real)
        if after:
            real(*args, **more)
        raise Stop

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(Stop):
        put(path)
    assert names(tmp_path) == {"f"}
    done = after and call == "replace"
    assert path.read_bytes() == (b"new" if done else b"old")


# A mode that cannot be set is no failure: the file is one that only its owner reads.
@pytest.mark.parametrize("call", [call for call in CALLS if call != "fchmod"])
def test_a_call_of_the_system_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(FailureError, match="/f: Input/output error"):
        put(path)
    monkeypatch.undo()
    assert names(tmp_path) == {"f"}
    assert path.read_bytes() == b"old"


# -- files of our own, with a temporary name that is known


def put_own(path: Path, content: bytes = b"new") -> None:
    with replacing(str(path), f"{path}.new") as fd:
        os.write(fd, content)


def test_the_file_of_a_killed_program_is_removed(tmp_path: Path) -> None:
    (tmp_path / "f.new").write_bytes(b"half")
    put_own(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == {"f"}
    put_own(tmp_path / "f", b"newer")
    assert (tmp_path / "f").read_bytes() == b"newer"


@pytest.mark.parametrize("make", [folder, fifo, unix_socket, circle, symlink, dangling, hard_link])
@pytest.mark.parametrize("name", ["f", "f.new"])
def test_neighbours_that_are_not_ours_are_refused(tmp_path: Path, name: str, make: Make) -> None:
    path = tmp_path / name
    make(path)
    before = os.lstat(path)
    there = names(tmp_path)
    with pytest.raises(FailureError, match=rf"/{name} is a .*; remove or rename it"):
        put_own(tmp_path / "f")
    assert os.lstat(path) == before
    assert names(tmp_path) == there
    if "victim" in there:
        assert (tmp_path / "victim").read_bytes() == b"old"


def test_a_file_of_ours_never_gets_a_second_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "link", link)
    for name in ("a", "b"):
        put(tmp_path / name)
        put_own(tmp_path / name)
        assert (tmp_path / name).stat().st_nlink == 1


def test_check_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert check_neighbour(str(path)) is None
    path.write_bytes(b"123")
    found = check_neighbour(str(path))
    assert found is not None
    assert found.st_size == 3
    with pytest.raises(FailureError, match="Not a directory"):
        check_neighbour(f"{path}/g")
