"""examples/ci: every command in it is run, on streams that pass and streams that do not."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.output.test_ci_formats import cases, run_of

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"
CAPTURES = Path(__file__).parents[1] / "captures"
INSTALL = 'pip install "$BLKMIG"'
SOUND = ["classic-none", "classic-tail"]
UNSOUND = "classic-incomplete"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def shell(folder: Path, command: str) -> int:
    """Run a command as CI systems do; return its exit status."""
    words = ["bash", "-e", "-o", "pipefail", "-c", command]
    return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode


@pytest.fixture(params=[True, False], ids=["sound", "unsound"])
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> bool:
    """A folder with streams, all of them sound or not."""
    (tmp_path / "streams").mkdir()
    for name in SOUND if request.param else [*SOUND, UNSOUND]:
        shutil.copy(CAPTURES / f"{name}.bin.gz", tmp_path / "streams")
    return bool(request.param)


def test_github(tmp_path: Path, sound: bool) -> None:
    workflow = load(CI / "github.yml")
    # YAML takes the key "on" for a truth value; GitHub does not.
    assert set(workflow) == {"name", True, "permissions", "env", "jobs"}
    failed, ran = False, []
    for step in workflow["jobs"]["validate"]["steps"]:
        command = step.get("run")
        if command is None or command == INSTALL or (step.get("if") == "failure()") != failed:
            continue
        ran.append(step["name"])
        failed |= shell(tmp_path, command) != 0
    assert ran == (["Validate"] if sound else ["Validate", "Print the findings"])
    (upload,) = [s for s in workflow["jobs"]["validate"]["steps"] if s.get("name") == "Upload"]
    assert upload["if"] == "${{ !cancelled() }}"
    results = run_of((tmp_path / upload["with"]["sarif_file"]).read_text())["results"]
    assert any(result["level"] == "error" for result in results) != sound
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results}
    assert all((tmp_path / uri).is_file() for uri in uris), "relative to the checkout"


def test_gitlab(tmp_path: Path, sound: bool) -> None:
    (job,) = load(CI / "gitlab.yml").values()
    assert job["before_script"] == [INSTALL]
    statuses = [shell(tmp_path, command) for command in job["script"]]
    assert statuses == [0 if sound else 1]
    assert job["artifacts"]["when"] == "always"
    found = cases((tmp_path / job["artifacts"]["reports"]["junit"]).read_text())
    failures = [case.get("name") for case in found if case.find("failure") is not None]
    assert failures == ([] if sound else [f"streams/{UNSOUND}.bin.gz"])


def test_pre_commit(tmp_path: Path, sound: bool) -> None:
    """The entry, the arguments and the matching files, as pre-commit uses them."""
    (hook,) = load(ROOT / ".pre-commit-hooks.yaml")
    (used,) = load(CI / "pre-commit-config.yaml")["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    assert {"name", "entry", "language"} <= set(hook)
    settings = hook | used
    names = sorted(f"streams/{path.name}" for path in (tmp_path / "streams").iterdir())
    matching = [name for name in names if re.search(settings["files"], name)]
    assert matching == names
    status = shell(tmp_path, " ".join([settings["entry"], *settings["args"], *matching]))
    assert status == (0 if sound else 1)
    for name, wanted in {"a.stream": True, "b.stream.zst": True, "c.bin": False}.items():
        assert bool(re.search(hook["files"], name)) == wanted


def test_every_file_is_explained() -> None:
    text = (CI / "README.md").read_text()
    for path in CI.iterdir():
        assert path.name == "README.md" or f"[{path.name}]({path.name})" in text
