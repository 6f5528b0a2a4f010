"""make mutate: which mutations are drawn, and that trials report what the tests notice."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mutate import __main__, trials
from mutate.__main__ import attempt_all, draw, report
from mutate.mutations import compiles, find_mutations
from mutate.trials import MEANT, PACKAGE, ROOT, Tree, Verdict, meant_tests, modules_named

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


def test_modules_and_their_tests() -> None:
    """Every module of the package has tests that are meant for it, and all of these exist."""
    rooms = [path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir()]
    top = [path.name for path in (ROOT / PACKAGE).glob("*.py")]
    for module in modules_named([name for name in [*rooms, *top] if name != "__pycache__"]):
        steps = meant_tests(module, every=False)
        assert all((ROOT / path).exists() for step in steps for path in step), module
    (block,) = modules_named(["schemas/block"])
    assert (ROOT / block).read_text() == (ROOT / "schemas" / "block.py").read_text()
    assert meant_tests(Path(PACKAGE, "ranges.py"), every=True)[0] == ("tests/test_ranges.py",)
    assert set(MEANT) <= {*rooms, ""}
    with pytest.raises(ValueError, match="no module or room 'wire/nothing'"):
        modules_named(["wire/nothing"])


MODULE = """\
def clip(size, limit):
    while size > limit:
        size -= 1
    unused = 5
    return size
"""
TESTS = """\
from blkmig_cli.clip import clip

def test_clip(tmp_path):
    assert (clip(5, 3), clip(3, 3), clip(-2, 3)) == (3, 3, -2)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A small project of its own."""
    folder = tmp_path / "tree"
    (folder / PACKAGE).mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / PACKAGE / "clip.py").write_text(MODULE)
    (folder / "tests" / "test_clip.py").write_text(TESTS)
    profile = "from hypothesis import settings; settings.register_profile('mutate')\n"
    (folder / "tests" / "conftest.py").write_text(profile)
    monkeypatch.setattr(__main__, "ROOT", folder)
    monkeypatch.setattr(trials, "ROOT", folder)
    monkeypatch.setitem(MEANT, "", ())
    return Tree(tmp_path, 1)


def test_trials(tree: Tree) -> None:
    module = Path(PACKAGE, "clip.py")
    chosen = ("comparison: size > limit -> size >= limit", "constant: 5 -> 6", "constant: 1 -> 2")
    drawn = [each for each in draw([module], 100, 1) if str(each[1]) in chosen]
    verdicts = attempt_all(drawn, [tree], every=False)
    assert [verdicts[each] for each in drawn] == [
        Verdict.CAUGHT, Verdict.SURVIVED, Verdict.SURVIVED,
    ]  # fmt: skip
    assert report(verdicts).splitlines() == [
        f"{module}:3: constant: 1 -> 2",
        f"{module}:4: constant: 5 -> 6",
        "3 mutations: 1 caught (0 by the time limit), 2 survived: 33.3% caught",
    ]
    assert (tree.folder / "tree" / module).read_text() == MODULE


@pytest.mark.long
def test_a_trial_without_end(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that goes on for ever is ended, and counts as caught."""
    module = Path(PACKAGE, "clip.py")
    (forever,) = [each for _, each in draw([module], 100, 1) if each.kind == "operator"]
    monkeypatch.setattr(trials, "LIMIT", 2)
    assert tree.attempt(module, forever, {("tests/test_clip.py",): 0}) is Verdict.TIMEOUT
    assert (tree.folder / "tree" / module).read_text() == MODULE


def test_tests_that_fail_without_a_mutation(tree: Tree) -> None:
    (tree.folder / "tree" / "tests" / "test_clip.py").write_text("def test_clip(): assert 0")
    with pytest.raises(RuntimeError, match="fails without a mutation"):
        attempt_all(draw([Path(PACKAGE, "clip.py")], 1, 1), [tree], every=False)


@pytest.mark.skipif(
    not (ROOT / PACKAGE / "schemas").is_symlink(), reason="in an sdist, the schemas are a copy"
)
def test_a_copy_has_the_tests_and_the_schemas() -> None:
    with trials.copied_tree(1) as copy:
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
