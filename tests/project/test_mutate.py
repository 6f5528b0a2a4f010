"""make mutate: which mutations are drawn, and that trials report what the tests notice."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mutate import __main__, trials
from mutate.__main__ import attempt_all, draw, report
from mutate.mutations import compiles, find_mutations
from mutate.reach import lines_to_reach, runs_once
from mutate.record import Record, get_record
from mutate.trials import (
    PACKAGE,
    ROOT,
    Step,
    Tree,
    Verdict,
    modules_named,
    read_sources,
    room_tests,
    steps_of,
)  # fmt: skip

SOURCE = '''\
"""A docstring."""
import os

LIMIT: int = 8
Kind = Literal["a", "b"]

def clip(size: "int", low=0, *, strict=True):
    """Return size."""
    if size < low and not strict:
        return low
    äöü = size
    äöü += 1
    äöü = min(äöü, LIMIT)
    check(äöü, low, strict=strict)
    for part in (
        b"ab",
    ):
        continue
    return f"{size + 1}"
'''


def changed() -> set[str]:
    """Return the lines that mutations of ``SOURCE`` change, each without its unchanged ends."""
    found = set()
    for mutation in find_mutations(SOURCE):
        was, now = SOURCE.splitlines(), mutation.apply(SOURCE).splitlines()
        assert compiles("\n".join(now)), mutation
        assert len(was) >= len(now)
        assert was[: mutation.line - 1] == now[: mutation.line - 1]
        found.add(now[mutation.line - 1].strip())
    return found


def test_every_kind_of_mutation() -> None:
    assert {
        "LIMIT: int = 9", "LIMIT: int = 7",
        'def clip(size: "int", low=1, *, strict=True):',
        'def clip(size: "int", low=-1, *, strict=True):',
        'def clip(size: "int", low=0, *, strict=False):',
        "if (size <= low) and not strict:",
        "if (size < low or not strict):",
        "if (not strict):", "if (size < low):",
        "if size < low and strict:",
        "if (not (size < low and (not strict))):",
        "pass",
        "äöü -= 1", "äöü += 2", "äöü += 0",
        "äöü = (max(äöü, LIMIT))", "äöü = äöü", "äöü = LIMIT",
        "(check(low, äöü, strict=strict))", "(check(äöü, low))",
        "b'ac',",
    } == changed()  # fmt: skip


def test_what_is_not_code_stays() -> None:
    lines = {mutation.line for mutation in find_mutations(SOURCE)}
    text = SOURCE.splitlines()
    assert [line for number, line in enumerate(text, 1) if number not in lines and line] == [
        '"""A docstring."""', "import os", 'Kind = Literal["a", "b"]',
        '    """Return size."""', "    äöü = size",
        "    for part in (", "    ):",
    ]  # fmt: skip


def test_drawn_mutations_compile_and_differ() -> None:
    modules = modules_named(["text", "schemas/block"])
    drawn = draw(modules, 10, 7)
    assert len(set(drawn)) == 10
    assert drawn == sorted(drawn) == draw(modules, 10, 7) != draw(modules, 10, 8)
    for path, mutation in drawn:
        source = (ROOT / path).read_text()
        assert ast.dump(ast.parse(mutation.apply(source))) != ast.dump(ast.parse(source))


def test_modules() -> None:
    (block,) = modules_named(["schemas/block"])
    assert (ROOT / block).read_text() == (ROOT / "schemas" / "block.py").read_text()
    rooms = [path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").is_file()]
    assert set(modules_named(rooms)) < read_sources().keys()
    with pytest.raises(ValueError, match="no module or room 'wire/nothing'"):
        modules_named(["wire/nothing"])


CLIP = """\
from functools import cache

LIMIT = 3
UNUSED = [
    LIMIT + 1
]

class Clip:
    limit: int = min(LIMIT, 8)

@cache
def get_clip():
    return Clip()

def clip(size, least=0):
    while size > get_clip().limit:
        size -= 1
    found = max(
        size,
        least,
    )
    return found
"""
USER = """\
from blkmig_cli.clip import Clip

def use():
    return other(
        Clip()
    )

def other(size):
    return size
"""


@pytest.mark.parametrize(
    ("line", "clip", "user"),
    [
        (16, {16}, set()),
        (18, {18, 19, 20, 21}, set()),
        # What runs once, by way of the names that it binds.
        (3, {16}, {5}),
        (9, {16}, {5}),
        (13, {16}, set()),
        (15, set(range(1, 23)), set()),  # nobody mentions clip: all lines
    ],
)
def test_lines_to_reach(line: int, clip: set[int], user: set[int]) -> None:
    module, other = Path("clip.py"), Path("user.py")
    mutation = next(each for each in find_mutations(CLIP) if each.line == line)
    reached = lines_to_reach({module: CLIP, other: USER}, module, mutation)
    assert reached == {path: lines for path, lines in ((module, clip), (other, user)) if lines}
    assert runs_once(CLIP, mutation) == (line not in (16, 18))


def test_steps() -> None:
    """Tests of the module and of its room are first, and the quickest; some are beyond the limit."""
    seconds = {
        "tests/test_b.py::a": 1.0, "tests/x/test_b.py::a": 3.0, "tests/x/test_b.py::b": 2.0,
        "tests/x/test_c.py::a": 5.0, "tests/test_c.py::a": 50.0, "tests/test_c.py::b": 0.5,
    }  # fmt: skip
    record = Record(seconds, None)  # type: ignore[arg-type]
    module = Path(PACKAGE, "x", "b.py")
    assert steps_of(module, set(seconds), record, 20) == [
        Step(["tests/x/test_b.py::b", "tests/x/test_b.py::a"], 5),
        Step(["tests/test_b.py::a", "tests/x/test_c.py::a", "tests/test_c.py::b"], 6.5),
    ]
    inner = Path(PACKAGE, "x", "y", "d.py")
    step = steps_of(inner, {"tests/x/test_c.py::a", "tests/test_c.py::b"}, record, 20)[0]
    assert step.tests[0] == "tests/x/test_c.py::a"
    assert steps_of(Path("schemas", "b.py"), {"tests/test_c.py::a"}, record, 20) == []
    assert room_tests(module, record) == {test for test in seconds if "/x/" in test}
    assert room_tests(Path(PACKAGE, "d.py"), record) == set(seconds) - room_tests(module, record)
    assert room_tests(Path("schemas", "b.py"), record) == set()


MODULE = """\
def clip(size, limit):
    while size > limit:
        size -= 1
    unused = 5
    return size

def other(size):
    return size + 1
"""
TESTS = """\
import subprocess
import sys
from blkmig_cli.clip import clip

def test_clip():
    assert (clip(5, 3), clip(3, 3), clip(-2, 3)) == (3, 3, -2)

def test_nothing():
    assert clip

def test_in_a_process():
    program = "from blkmig_cli.clip import other; assert other(1) == 2"
    subprocess.run([sys.executable, "-c", program], check=True)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A small project of its own."""
    folder = tmp_path / "tree"
    (folder / PACKAGE).mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "mutate").symlink_to(ROOT / "mutate")
    (folder / PACKAGE / "clip.py").write_text(MODULE)
    (folder / "tests" / "test_clip.py").write_text(TESTS)
    profile = "from hypothesis import settings; settings.register_profile('mutate')\n"
    (folder / "tests" / "conftest.py").write_text(profile)
    monkeypatch.setattr(__main__, "ROOT", folder)
    monkeypatch.setattr(trials, "ROOT", folder)
    return Tree(tmp_path)


@pytest.fixture
def record(tree: Tree, tmp_path: Path) -> Record:
    return get_record(tree.folder / "tree", tmp_path / "record", 1, anew=False)


CLIP_PY = Path(PACKAGE, "clip.py")
TEST = "tests/test_clip.py::test_"


@pytest.mark.long
def test_record(tree: Tree, record: Record, tmp_path: Path) -> None:
    """Lines executed in a process that a test starts count; a changed module of tests runs again."""
    assert record.seconds.keys() == {f"{TEST}clip", f"{TEST}nothing", f"{TEST}in_a_process"}
    assert record.tests({CLIP_PY: {3}}) == {f"{TEST}clip"}
    assert record.tests({CLIP_PY: {8}}) == {f"{TEST}in_a_process"}
    assert record.tests({Path("clip.py"): {9}}) == set()
    path = tree.folder / "tree" / "tests" / "test_clip.py"
    more = "from blkmig_cli.clip import other\ndef test_{}(): assert other(1) == {}\n"
    path.with_name("test_other.py").write_text(more.format("right", 2) + more.format("wrong", 3))
    path.write_text("def test_clip(): assert 1\n")
    later = get_record(tree.folder / "tree", tmp_path / "record", 1, anew=False)
    assert later.seconds.keys() == {f"{TEST}clip", "tests/test_other.py::test_right"}
    assert later.tests({CLIP_PY: {8}}) == {"tests/test_other.py::test_right"}


@pytest.mark.long
def test_a_known_record(tree: Tree, record: Record, tmp_path: Path) -> None:
    index = tmp_path / "record" / "tests.json"
    before = index.stat().st_mtime_ns
    assert (
        get_record(tree.folder / "tree", tmp_path / "record", 1, anew=False).seconds
        == record.seconds
    )
    assert index.stat().st_mtime_ns == before
    (tree.folder / "tree" / CLIP_PY).write_text(MODULE + "# changed\n")
    get_record(tree.folder / "tree", tmp_path / "record", 1, anew=False)
    assert index.stat().st_mtime_ns != before


@pytest.mark.long
def test_trials(tree: Tree, record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("comparison: size > limit -> size >= limit", "constant: 5 -> 6", "constant: 1 -> 2")
    drawn = [each for each in draw([CLIP_PY], 100, 1) if str(each[1]) in chosen]
    verdicts = attempt_all(drawn, [tree], record, 60)
    assert [verdicts[each] for each in drawn] == [
        Verdict.CAUGHT, Verdict.SURVIVED, Verdict.SURVIVED, Verdict.CAUGHT,
    ]  # fmt: skip
    assert report(verdicts).splitlines() == [
        f"{CLIP_PY}:3: constant: 1 -> 2",
        f"{CLIP_PY}:4: constant: 5 -> 6",
        "4 mutations: 2 caught (0 by the time limit), 2 survived: 50.0% caught",
    ]
    assert f"1/4 caught: {CLIP_PY}:2: {drawn[0][1]}: {TEST}clip\n" in capsys.readouterr().err
    assert (tree.folder / "tree" / CLIP_PY).read_text() == MODULE


AT_TIMES = """\
from pathlib import Path

def test_at_times():
    if not Path("ran").exists():
        Path("ran").touch()
        assert 0

def test_next():
    Path("next").touch()
"""


@pytest.mark.long
def test_a_failure_that_is_not_repeated(tree: Tree) -> None:
    """It is no catch; the other tests run."""
    root = tree.folder / "tree"
    (root / "tests" / "test_clip.py").write_text(AT_TIMES)
    _, mutation = draw([CLIP_PY], 1, 1)[0]
    step = Step([f"{TEST}at_times", f"{TEST}next"], 0)
    assert tree.attempt(CLIP_PY, mutation, [step]) == (Verdict.SURVIVED, "")
    assert (root / "next").exists()


@pytest.mark.long
def test_a_trial_without_end(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that goes on for ever is ended, and counts as caught."""
    (forever,) = [each for _, each in draw([CLIP_PY], 100, 1) if str(each) == FOREVER]
    monkeypatch.setattr(trials, "LIMIT", 2)
    assert tree.attempt(CLIP_PY, forever, [Step([f"{TEST}clip"], 0)]) == (Verdict.TIMEOUT, "")
    assert (tree.folder / "tree" / CLIP_PY).read_text() == MODULE


FOREVER = "operator: size -= 1 -> size += 1"


@pytest.mark.long
def test_tests_that_are_not_there(tree: Tree, record: Record) -> None:
    (tree.folder / "tree" / "tests" / "test_clip.py").write_text("def test_other(): assert 1")
    with pytest.raises(RuntimeError, match="cannot be collected without a mutation"):
        attempt_all(draw([CLIP_PY], 1, 1), [tree], record, 60)


@pytest.mark.skipif(
    not (ROOT / PACKAGE / "schemas").is_symlink(), reason="in an sdist, the schemas are a copy"
)
def test_a_copy_has_the_tests_and_the_schemas() -> None:
    with trials.copied_tree() as copy:
        assert (copy.folder / "tree" / "tests" / "project" / Path(__file__).name).is_file()
        link = copy.folder / "tree" / PACKAGE / "schemas"
        assert link.resolve() == (copy.folder / "tree" / "schemas").resolve()
        assert not (copy.folder / "tree" / ".git").exists()
    assert not copy.folder.exists()


def test_a_wrong_call() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mutate", "nothing"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no module or room 'nothing'" in done.stderr
