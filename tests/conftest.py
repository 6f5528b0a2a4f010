"""What all tests share: the captures with their truth, and ways to run and to feed things."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blkmig_cli.commands import cli
from blkmig_cli.transport.inputs import FileInput

CAPTURES = Path(__file__).parent / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))


@pytest.fixture(params=["scanner", "schemas"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: with files scanned, and with every record parsed by the schemas."""
    if request.param == "schemas":
        monkeypatch.setattr(FileInput, "rows", None)


@dataclass(frozen=True)
class Capture:
    """A real stream, unpacked, and what is known of it from other sources."""

    name: str
    path: Path
    truth: dict[str, Any]

    @property
    def base(self) -> Path:
        return self.path.with_suffix(".base.raw")

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def told(self) -> list[str]:
        """Options that tell sizes and granularities."""
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


@pytest.fixture
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
    assert len(lines) == len(outcome.err.splitlines()) == 1 or "Usage:" in outcome.err
