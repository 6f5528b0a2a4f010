"""Imports point one way through the rooms of the package; each outside library has one importer."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps

PACKAGE = Path(__file__).parents[2] / "blkmig_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    # (rglob does not go into the link.)
    for path in {*PACKAGE.rglob("*.py"), *PACKAGE.glob("schemas/*.py")}
}
#: The rooms in their order: a module imports from its own room, and from those before it.
ROOMS = [
    "schemas",
    "ground",
    "wire",
    "system",
    "disks",
    "transport",
    "contents",
    "checks",
    "spec",
    "operations",
    "output",
    "commands",
    "front",
]
#: Modules at the top of the package: what all may use, and the front door.
GROUND = {
    *("dataclass", "errors", "intervals", "json_text", "limits", "progress", "ranges", "text"),
}
FRONT = {"", "__main__", "api"}
#: A room that loads nothing of the operating system.
NO_IO = {"os", "socket", "subprocess", "sys", "pathlib", "tempfile", "fcntl", "mmap"}


def imports(path: Path, module: str) -> set[str]:
    """Return absolute names of what a module imports: at its top, in functions, and for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def room(module: str) -> str:
    """Return the room of a module."""
    top, _, rest = module.removeprefix("blkmig_cli").removeprefix(".").partition(".")
    if top in FRONT:
        return "front"
    return "ground" if top in GROUND and not rest else top


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name in MODULES}


def outside(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names} - {"blkmig_cli"}


def reach(module: str) -> set[str]:
    """Return all modules that importing ``module`` may load."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in ours(GRAPH[todo.pop()]) - seen:
            seen.add(name)
            todo.append(name)
    return seen


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 60
    assert {room(module) for module in MODULES} == set(ROOMS)
    assert "blkmig_cli.wire.events" in GRAPH["blkmig_cli.wire.schema_io"]
    assert "blkmig_cli.checks.report" in GRAPH["blkmig_cli.output.documents"]  # for types only


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_up_the_list_of_rooms(module: str) -> None:
    place = ROOMS.index(room(module))
    for name in ours(GRAPH[module]) - {"blkmig_cli"}:
        assert ROOMS.index(room(name)) <= place, f"{module} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    for module in MODULES:
        if module != "blkmig_cli":  # the front door loads everything, when it is asked for
            assert module not in reach(module), module


def test_the_top_of_the_package_is_small() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == GROUND | {"__init__", "__main__", "api"}


def test_a_folder_does_not_load_its_modules() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and room(module) not in ("front", "schemas", "commands"):
            assert GRAPH[module] == set(), module


def test_schemas_stand_alone() -> None:
    for module in MODULES:
        if room(module) == "schemas":
            assert outside(GRAPH[module]) <= {
                *("collections", "construct", "dataclasses", "enum", "functools", "typing")
            }


def test_wire_does_no_input_and_output() -> None:
    for module in MODULES:
        if room(module) == "wire":
            for name in {module, *reach(module)}:
                assert not NO_IO & outside(GRAPH[name]), name


def test_each_library_has_one_importer() -> None:
    for module, names in GRAPH.items():
        libraries = outside(names)
        assert "rich" not in libraries or module.startswith("blkmig_cli.output.human.")
        assert "click" not in libraries or room(module) == "commands"
        assert "qemu" not in libraries or module == "blkmig_cli.system.qmp"
        if "construct" in libraries:
            assert module == "blkmig_cli.wire.schema_io" or room(module) == "schemas"


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all that a module consists of."""
    return list(ast.walk(ast.parse(path.read_text())))


def private_names(path: Path) -> set[str]:
    """Return uses of private members of anything but the object itself and its class."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if not node.attr.startswith("__") and owner not in ("self", "cls", "other", "super"):
                found.add(f"{owner}.{node.attr}")
    return found


def defined_names(path: Path) -> set[str]:
    """Return the private names that a module defines."""
    found = {
        node.attr
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    found |= {node.name for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        node.target.id
        for node in nodes(path)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.mark.parametrize("module", sorted(MODULES))
def test_private_members_stay_in_their_module(module: str) -> None:
    own = defined_names(MODULES[module])
    for name in private_names(MODULES[module]):
        assert name.rpartition(".")[2] in own or name == "os._exit", name


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


@pytest.mark.parametrize(
    ("words", "unloaded"),
    [
        (["--help"], {"numpy", "construct", "rich", "backports", "yaml"}),
        (["--version"], {"numpy", "construct", "rich", "backports", "yaml"}),
        (["send", "--help"], {"numpy", "rich", "backports", "yaml"}),
        (["validate", "--help"], {"rich", "yaml"}),
    ],
)
def test_commands_load_what_they_need(words: list[str], unloaded: set[str]) -> None:
    assert not unloaded & loaded_by(words)


def test_what_a_disk_without_bitmaps_needs(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(5 << 20) + b"data" * 128)
    sent = ["send", str(disk), "--to", str(tmp_path / "stream.bin")]
    assert not {"numpy", "rich", "backports", "yaml"} & loaded_by(sent)


def test_what_an_increment_needs(tmp_path: Path) -> None:
    disk, bitmaps, target = tmp_path / "disk.img", tmp_path / "b.json", tmp_path / "stream.bin"
    disk.write_bytes(bytes(5 << 20) + b"data" * 128)
    dirty = BitmapFile(disk.stat().st_size, {"b": DirtyBitmap("b", 65536)})
    dirty.bitmaps["b"].set_range(5 << 20, 512)
    write_bitmaps(bitmaps, dirty)
    base = tmp_path / "base.json"
    loaded_by(["send", str(disk), "--to", str(target), "--manifest", str(base)])
    changes = ["--since", "b", "--bitmaps-from", str(bitmaps), "--base", str(base)]
    sent = ["send", str(disk), *changes, "--to", str(target)]
    assert not {"numpy", "rich", "backports", "yaml"} & loaded_by(sent)
    assert target.stat().st_size > 1 << 20


def loaded_by(words: list[str]) -> set[str]:
    """Return the modules that a command loads."""
    script = (
        "import sys; from blkmig_cli.commands import cli\n"
        "try: cli()\n"
        "finally: print(sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded: set[str] = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert "click" in loaded
    return loaded


def test_garbage_is_collected_when_a_command_runs(tmp_path: Path) -> None:
    """Not before, as what is loaded stays."""
    script = (
        "import gc, sys, blkmig_cli.commands.validate as module, blkmig_cli.__main__ as entry\n"
        "module.command.callback = lambda **_: print(gc.isenabled(), gc.get_freeze_count() > 9000)\n"
        "entry._end = sys.exit\n"
        "sys.argv = ['blkmig', 'validate', 'x']\n"
        "entry.main()\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "True True\n"
