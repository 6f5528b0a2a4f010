"""The import direction, and who may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "blkmig_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
CORE = (
    "blkmig_cli.decode",
    "blkmig_cli.wire.schema_io",
    "blkmig_cli.wire.events",
    "blkmig_cli.wire.encoder",
)
STANDARD = {"dataclasses", "enum", "construct", "collections"}


def imports(path: Path, module: str) -> set[str]:
    """Absolute names of what a module imports, when it runs (not for types only)."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    skipped = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                base = f"{package}.{base}".rstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
    return found


GRAPH = {module: imports(path, module) for module, path in MODULES.items()}


def reach(module: str) -> set[str]:
    """All that importing ``module`` imports of ours, and the outside names on the way."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in GRAPH.get(todo.pop(), set()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 30
    assert "blkmig_cli.wire.events" in GRAPH["blkmig_cli.wire.schema_io"]


def test_imports_have_no_cycle() -> None:
    for module in MODULES:
        if module != "blkmig_cli.commands":
            assert module not in reach(module) - {"blkmig_cli"}, module


def test_schemas_stand_alone() -> None:
    for module in MODULES:
        if module.startswith("blkmig_cli.schemas"):
            outside = {name for name in reach(module) if not name.startswith("blkmig_cli.schemas")}
            assert {name.partition(".")[0] for name in outside} <= STANDARD, module


def test_the_core_does_no_input_and_output() -> None:
    banned = {"os", "socket", "subprocess", "click", "rich", "sys", "pathlib"}
    for module in MODULES:
        if module.startswith(CORE):
            assert not banned & {name.partition(".")[0] for name in reach(module)}, module


def test_one_door_each() -> None:
    for module, names in GRAPH.items():
        outside = {name.partition(".")[0] for name in names}
        assert "rich" not in outside or module.startswith("blkmig_cli.output.human.")
        assert "click" not in outside or module.startswith("blkmig_cli.commands")
        if "construct" in outside:
            assert module == "blkmig_cli.wire.schema_io" or module.startswith("blkmig_cli.schemas")


def test_nothing_but_the_entry_imports_commands() -> None:
    for module, names in GRAPH.items():
        if not module.startswith("blkmig_cli.commands") and module != "blkmig_cli.__main__":
            assert not any(name.startswith("blkmig_cli.commands") for name in names), module


def test_the_front_door_is_for_others() -> None:
    assert [module for module, names in GRAPH.items() if "blkmig_cli.api" in names] == []


def test_importing_the_package_loads_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import blkmig_cli; print(set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = ast.literal_eval(done.stdout)
    assert {name for name in loaded if name.startswith("blkmig_cli.")} == set()
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"blkmig_cli"}


def test_files_can_be_read_at_a_sitting() -> None:
    for folder in (PACKAGE, PACKAGE / "schemas", PACKAGE.parent / "tests"):
        for path in folder.rglob("*.py"):
            limit = 400 if "tests" not in path.parts else 600
            assert len(path.read_text().splitlines()) <= limit, path


@pytest.mark.parametrize(
    ("words", "unloaded"),
    [
        (["--help"], {"numpy", "construct", "rich", "zstandard", "yaml"}),
        (["--version"], {"numpy", "construct", "rich", "zstandard", "yaml"}),
        (["send", "--help"], {"numpy", "rich", "zstandard", "yaml"}),
        (["validate", "--help"], {"rich", "yaml"}),
    ],
)
def test_commands_load_what_they_need(words: list[str], unloaded: set[str]) -> None:
    script = (
        "import sys; from blkmig_cli.commands import cli\n"
        "try: cli()\n"
        "finally: print(sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert "click" in loaded
    assert not unloaded & loaded
