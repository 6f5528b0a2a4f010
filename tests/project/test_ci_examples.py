"""examples/ci: every command in it is run, on streams that pass and streams that do not."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

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


def shell(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as CI systems do."""
    words = ["bash", "-e", "-o", "pipefail", "-c", command]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | variables
    )


@pytest.fixture(params=[True, False], ids=["sound", "unsound"])
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> bool:
    """A folder with streams, all of them sound or not."""
    (tmp_path / "streams").mkdir()
    for name in SOUND if request.param else [*SOUND, UNSOUND]:
        shutil.copy(CAPTURES / f"{name}.bin.gz", tmp_path / "streams")
    return bool(request.param)


def check_results(folder: Path, sound: bool, log: str, junit: Path, sarif: Path) -> None:
    """Check that all results of a run for GitHub say the same."""
    errors = [line for line in log.splitlines() if line.startswith("::error ")]
    assert bool(errors) != sound
    assert all(f"file=streams/{UNSOUND}.bin.gz,title=" in line for line in errors)
    found = cases((folder / junit).read_text())
    failed = [case.get("name") for case in found if case.find("failure") is not None]
    assert failed == ([] if sound else [f"streams/{UNSOUND}.bin.gz"])
    results = run_of((folder / sarif).read_text())["results"]
    assert any(result["level"] == "error" for result in results) != sound
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results}
    assert all((folder / unquote(uri)).is_file() for uri in uris), "relative to the checkout"


def test_github(tmp_path: Path, sound: bool) -> None:
    """The workflow validates once."""
    workflow = load(CI / "github.yml")
    # YAML takes the key "on" for a truth value; GitHub does not.
    assert set(workflow) == {"name", True, "permissions", "env", "jobs"}
    steps = {step.get("name"): step for step in workflow["jobs"]["validate"]["steps"]}
    commands = [step["run"] for step in steps.values() if "run" in step]
    assert commands == [INSTALL, steps["Validate"]["run"]]
    done = shell(tmp_path, commands[1])
    assert done.returncode == (0 if sound else 1)
    for name in ("Keep the results", "Upload"):
        assert steps[name]["if"] == "${{ !cancelled() }}"
    check_results(
        tmp_path,
        sound,
        done.stdout,
        steps["Keep the results"]["with"]["path"],
        steps["Upload"]["with"]["sarif_file"],
    )


def test_github_action(tmp_path: Path, sound: bool) -> None:
    """The commands of the composite action, with inputs as its users write them."""
    action = load(ROOT / "action.yml")
    assert {"name", "description"} <= set(action)
    assert action["runs"]["using"] == "composite"
    given = {"streams": "streams/*.bin.gz\n\nmore\n", "junit": "a b.xml", "sarif": "c.sarif",
             "options": "--for-qemu 9.0 --ignore qemu-cannot-load"}  # fmt: skip
    assert set(given) < set(action["inputs"])
    assert all(
        ("default" in one) != one.get("required", False) for one in action["inputs"].values()
    )
    (tmp_path / "more").mkdir()
    shutil.copy(CAPTURES / f"{SOUND[0]}.bin.gz", tmp_path / "more" / "it's one")
    _, install, validate = action["runs"]["steps"]
    assert install["run"] == 'pip install --quiet "$GITHUB_ACTION_PATH"'
    assert "${{" not in validate["run"]  # nothing is put into the script
    variables = {
        key: given[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)[1]]  # type: ignore[index]
        for key, value in validate["env"].items()
    }
    summary = tmp_path / "summary.md"
    done = shell(tmp_path, validate["run"], **variables, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == (0 if sound else 1), done.stderr
    assert "whole: more/it's one" in done.stdout
    check_results(tmp_path, sound, done.stdout, Path(given["junit"]), Path(given["sarif"]))
    text = summary.read_text()
    assert text.startswith(f"### blkmig validate: {3 if sound else 4} streams\n")
    assert ("incomplete" in text) != sound
    # Without the inputs that may be missing.
    variables |= {"OPTIONS": "", "JUNIT": "", "SARIF": "", "STREAMS": "streams/classic-none*"}
    done = shell(tmp_path, validate["run"], **variables)
    assert done.returncode == 0, done.stderr


def test_gitlab(tmp_path: Path, sound: bool) -> None:
    (job,) = load(CI / "gitlab.yml").values()
    assert job["before_script"] == [INSTALL]
    statuses = [shell(tmp_path, command).returncode for command in job["script"]]
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
    status = shell(tmp_path, " ".join([settings["entry"], *settings["args"], *matching])).returncode
    assert status == (0 if sound else 1)
    for name, wanted in {
        "a.stream": True,
        "b.stream.zst": True,
        "c.bin": False,
        "exec:touch x;.stream": False,
        "d/exec:.stream": True,
    }.items():
        assert bool(re.search(hook["files"], name)) == wanted


def test_every_file_is_explained() -> None:
    text = (CI / "README.md").read_text()
    for path in CI.iterdir():
        assert path.name == "README.md" or f"[{path.name}]({path.name})" in text
