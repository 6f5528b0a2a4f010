"""What all tests share: the captures with their known content, ways to run commands, a home for each test."""

import gc
import gzip
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, settings

from blkmig_cli.commands import cli
from blkmig_cli.transport.inputs import FileInput
from tests.support.long import LONG, examples

# No test fails because the machine is busy.  Fixtures that stay the same for all examples of a test
# are folders, whose files each example writes anew.
settings.register_profile(
    "blkmig",
    max_examples=examples(50, 100),
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
# For make mutate, to which it only matters whether a test fails.
settings.register_profile(
    "mutate", settings.get_profile("blkmig"), database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("blkmig")

# The programs that the tests start buffer their output, and are compiled once, as they are elsewhere.
os.environ.pop("PYTHONUNBUFFERED", None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell without job control has its background jobs ignore SIGINT, and so would the programs that
# the tests start, and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CAPTURES = Path(__file__).parent / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
#: Captures of 200,000 parts and more, most of them empty.
MANY_PARTS = ("bitmaps-10.0", "bitmaps-5.2")
#: Captures that are like others, but for their length: for the long tests, where others are enough.
MORE = (
    *MANY_PARTS,
    "classic-live-writes",
    "classic-incomplete",
    "classic-ram-compress",
    "classic-none",
)


def captures_but(long: tuple[str, ...], without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Return the mark of tests of all captures ``without`` some; those in ``long`` for the long tests."""
    params = [
        pytest.param(name, marks=pytest.mark.long if name in long else [])
        for name in NAMES
        if name not in without
    ]
    return pytest.mark.parametrize("capture", params, indirect=True)


#: For tests that take a time for each record: one of these captures is enough in an ordinary run.
each_record = captures_but(MANY_PARTS[1:])
#: For tests that take longer, for each event: bitmaps-7.2-with-blocks has all their kinds, in
#: 50,000 parts.
each_event = captures_but(MANY_PARTS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, or all others: see tests/support/long.py."""

    def chosen(item: pytest.Item) -> bool:
        long, scaled = (item.get_closest_marker(name) for name in ("long", "scaled"))
        return bool(long or scaled) if LONG else not long

    left_out = [item for item in items if not chosen(item)]
    if left_out:
        items[:] = [item for item in items if chosen(item)]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The variables of all tests; yields the folder for the homes that they name."""
    home = tmp_path_factory.mktemp("homes") / "home"
    # It is used to the end: not in the home of the first test that needs it.
    get_temp_dir()
    with pytest.MonkeyPatch.context() as patch:
        for variable, place in {
            "HOME": "",
            "TMPDIR": "tmp",
            "XDG_CACHE_HOME": ".cache",
            "XDG_CONFIG_HOME": ".config",
            "XDG_DATA_HOME": ".local/share",
            "XDG_STATE_HOME": ".local/state",
            "XDG_RUNTIME_DIR": "run",
        }.items():
            patch.setenv(variable, str(home / place))
        # The commands of this installation, in the colours that a test asks for.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.delenv("NO_COLOR", raising=False)
        patch.setattr(tempfile, "tempdir", str(home / "tmp"))
        yield home


@pytest.fixture(autouse=True)
def home(homes: Path) -> Iterator[Path]:
    """A user's folders and a place for temporary files, which nothing else uses and are empty."""
    temporary = homes / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    yield homes
    if os.listdir(homes) != [temporary.name] or os.listdir(temporary):
        shutil.rmtree(homes)


@pytest.fixture(params=["scanner", "schemas"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: with files scanned, and with every record parsed by the schemas."""
    if request.param == "schemas":
        monkeypatch.setattr(FileInput, "rows", None)


@dataclass(frozen=True)
class Capture:
    """A real stream, unpacked, and its content as other programs recorded it."""

    name: str
    path: Path
    truth: dict[str, Any]

    @property
    def base(self) -> Path:
        return self.path.with_suffix(".base.raw")

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def hints(self) -> list[str]:
        """Return options that state sizes and granularities."""
        options = []
        for device, disk in self.truth["devices"].items():
            options += ["--device-size", f"{device}={disk['size']}"]
        if self.truth["dialect"] == "v1":
            for bitmap in self.truth["bitmaps"]:
                key = f"{bitmap['device']}:{bitmap['name']}"
                options += ["--granularity", f"{key}={bitmap['granularity']}"]
        return options


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def report(self) -> Any:
        return self.json["streams"][0]


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every capture, unpacked."""
    folder = tmp_path_factory.mktemp("captures")
    for packed in CAPTURES.glob("*.gz"):
        with gzip.open(packed) as source, open(folder / packed.stem, "wb") as target:
            shutil.copyfileobj(source, target)
    return folder


@pytest.fixture(params=NAMES)
def capture(request: pytest.FixtureRequest, unpacked: Path) -> Capture:
    return get_capture(request.param, unpacked)


def get_capture(name: str, unpacked: Path) -> Capture:
    truth = json.loads((CAPTURES / f"{name}.json").read_text())
    return Capture(name, unpacked / f"{name}.bin", truth)


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs blkmig in this process; a traceback fails the test."""

    def call(*words: object, stdin: bytes | None = None) -> Outcome:
        result = CliRunner().invoke(cli, [str(word) for word in words], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


def fails(outcome: Outcome, status: int, words: str) -> None:
    """The exit status, and one line on stderr."""
    assert outcome.status == status, outcome
    assert words in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("blkmig: ")]
    assert len(lines) == len(outcome.err.splitlines()) == 1
