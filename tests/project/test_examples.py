"""Every example runs, and prints what it says."""

import hashlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import pytest

from tests.conftest import Outcome
from tests.support import qcow2, raw
from tests.support.peers import PATIENCE
from tests.support.qcow2 import needs_qemu_utils, qemu_img

EXAMPLES = Path(__file__).parents[2] / "examples"
CAPTURES = Path(__file__).parents[1] / "captures"


def call(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_demo(tmp_path: Path) -> None:
    done = call(tmp_path, "sh", EXAMPLES / "demo.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("identical; the incomplete stream was detected.\n")


def example(name: str, *words: object) -> Outcome:
    """Run an example in this process, as a program."""
    out, err = StringIO(), StringIO()
    status: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [name, *map(str, words)])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
    if isinstance(status, str):  # a message for stderr
        return Outcome(1, out.getvalue(), err.getvalue() + status)
    return Outcome(status or 0, out.getvalue(), err.getvalue())


def compare(folder: Path, truth: object) -> Outcome:
    path = folder / "truth.json"
    path.write_text(json.dumps(truth))
    return example("compare_with_truth.py", path, f"drive0={folder / 'disk.img'}")


@pytest.mark.long
def test_compare_with_truth_sees_every_difference(tmp_path: Path) -> None:
    """The script that ends the demo with "identical" compares the disk, each bitmap and its flags."""
    call(tmp_path, sys.executable, EXAMPLES / "make_disk.py", "disk.img")
    bitmaps = json.loads((tmp_path / "disk.img.bitmaps.json").read_text())["bitmaps"]
    for bitmap in bitmaps:
        bitmap |= {"device": "drive0", "enabled": bitmap["recording"]}
    disk = hashlib.sha256((tmp_path / "disk.img").read_bytes()).hexdigest()
    truth = {"devices": {"drive0": {"sha256": disk}}, "bitmaps": bitmaps}
    assert compare(tmp_path, truth).status == 0
    first, second = bitmaps
    wrong = [
        {**truth, "devices": {"drive0": {"sha256": "0" * 64}}},
        {**truth, "devices": {**truth["devices"], "drive1": {"sha256": disk}}},
        {**truth, "bitmaps": [first]},
        *(
            {**truth, "bitmaps": [{**first, key: value}, second]}
            for key, value in {
                "enabled": not first["enabled"],
                "persistent": not first["persistent"],
                "granularity": 4096,
                "count": 1,
                "dirty": [],
            }.items()
        ),
    ]
    for different in wrong:
        assert compare(tmp_path, different).status == 1, different


@pytest.mark.parametrize(
    ("name", "status"), [("classic-none", 0), ("classic-incomplete", 1), ("v1-no-bitmaps", 0)]
)
def test_check_capture(tmp_path: Path, name: str, status: int) -> None:
    done = call(tmp_path, "sh", EXAMPLES / "check_capture.sh", CAPTURES / f"{name}.bin.gz")
    assert done.returncode == status
    assert f"exit status {status}" in done.stdout


@pytest.mark.parametrize("name", ["check_capture.sh", "nightly.sh"])
def test_scripts_without_arguments(tmp_path: Path, name: str) -> None:
    """Nothing to check is no success."""
    done = call(tmp_path, "sh", EXAMPLES / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {name} ")


def test_list_chunks(tmp_path: Path) -> None:
    stream = CAPTURES / "classic-live-writes.bin.gz"
    done = call(tmp_path, sys.executable, EXAMPLES / "list_chunks.py", stream)
    assert done.stdout == "drive0: 18 chunks\n"


def test_broken_spec_builds_a_broken_stream(tmp_path: Path) -> None:
    built = call(tmp_path, "blkmig", "build", EXAMPLES / "broken.yaml", "--to", "broken.bin")
    assert built.returncode == 0
    done = call(tmp_path, "blkmig", "validate", "broken.bin")
    assert done.returncode == 3
    assert "footer of section 7, expected 1" in done.stderr


def test_the_library(tmp_path: Path) -> None:
    mib, data = 1 << 20, bytes([9]) * (1 << 20)
    dirty = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
    path, image, made = tmp_path / "s.bin", tmp_path / "disk", tmp_path / "made"
    path.write_bytes(raw.qemu(raw.block(2048, 0, "d", data), raw.block(0, 8), bitmaps=dirty))
    assert example("list_chunks.py", path).out == "d: 2 chunks\n"
    assert example("copy_disk.py", path, "d", image).out == f"d: {2 * mib} bytes\n"
    assert image.read_bytes() == bytes(mib) + data
    assert example("dirty_ranges.py", path).out == "d/b: 131072 bytes from 0\n"
    done = example("make_stream.py", image, made)
    assert done.out == f"{made.stat().st_size} bytes\n", done.err
    assert example("dirty_ranges.py", made).out == f"drive0/daily: {mib} bytes from 0\n"
    assert example("check_stream.py", made).status == 0
    made.write_bytes(raw.qemu(raw.block(0, 0, "d", data), raw.block(4096, 8)))
    done = example("check_stream.py", made)
    assert done.status == 1
    assert "1 MiB was not sent" in done.out


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text() + (EXAMPLES / "demo.sh").read_text()
    for path in filter(Path.is_file, EXAMPLES.iterdir()):  # those of ci/: test_ci_examples.py
        assert path.name in tested


@pytest.mark.long
@needs_qemu_utils
def test_nightly(tmp_path: Path) -> None:
    """Each night has a stream; the oldest are folded; the image keeps the last two bitmaps."""
    image = tmp_path / "d.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 5 << 20)
    for night in range(1, 4):
        qcow2.write(image, f"write -P {night} {night}M 4k")
        done = call(tmp_path, "sh", EXAMPLES / "nightly.sh", image, "backups", 2)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("Images are identical.\n")
    assert sorted(path.name for path in (tmp_path / "backups").iterdir()) == [
        "0002.bin",
        "0003.bin",
    ]
    assert list(qcow2.stored_bitmaps(image)) == ["night-0002", "night-0003"]


def test_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells of captures.ipynb run in order, in its folder, and it is stored without outputs."""
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "captures.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(
        cells
    )
    names: dict[str, object] = {}
    with redirect_stdout(StringIO()) as out:
        for cell in cells:
            exec("".join(cell["source"]), names)
    truth = json.loads((CAPTURES / "bitmaps-7.2-with-blocks.json").read_text())
    for bitmap in truth["bitmaps"]:
        if bitmap["device"] == "drive0":
            total = sum(part["length"] for part in bitmap["dirty"])
            words = (
                f"{bitmap['name']}: granularity {bitmap['granularity']}, {total} bytes dirty in "
            )
            assert f"{words}{len(bitmap['dirty'])} ranges\n" in out.getvalue()
    disk = json.loads((CAPTURES / "classic-none.json").read_text())["devices"]["drive0"]
    assert out.getvalue().endswith(f"drive0 {disk['size']} {disk['sha256']}\n")


@pytest.mark.long
@needs_qemu_utils
def test_the_page_of_increments(tmp_path: Path) -> None:
    """Its commands run in order, with writes before each send, and give the disk in both ways."""
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 5 << 20)
    page = (EXAMPLES.parent / "docs" / "increments.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    sent = 0
    for command in "".join(blocks).splitlines():
        if command.startswith("blkmig send"):
            qcow2.write(image, f"write -P {sent + 1} {sent}M 4k")
            sent += 1
        done = call(tmp_path, "sh", "-c", command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert sent == 3
    qcow2.same(image, "qcow2", tmp_path / "restored.img")
    done = call(tmp_path, "blkmig", "compare", "full.bin", "restored.img")
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@needs_qemu_utils
def test_the_readme_as_written(tmp_path: Path) -> None:
    """Its commands, but for those that need a reader's QEMU or hosts, run in order in a clone's demo/."""
    page = (EXAMPLES.parent / "README.md").read_text()
    start = page.index("## A tour")
    chapters = re.split(r"^## ", page[start:], flags=re.MULTILINE)
    text = "".join(part for part in chapters if not part.startswith("With a QEMU"))
    blocks = re.findall(r"^```(console|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "tests").symlink_to(CAPTURES.parent)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    script = []
    for kind, block in blocks:
        if "ssh " in block:
            continue
        for line in block.splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            command = line.removeprefix("$ ").partition("  #")[0].rstrip()
            if "& #" in line:
                wait = "while [ ! -S nbd.sock ]; do sleep 0.01; done"
                script.append(f"{command.partition('& #')[0]} &\n{wait}")
            else:
                quoted = command.replace('"', "").replace("$", "")
                script.append(f'{command} || echo "FAILED $? {quoted}" >> failed')
    process = subprocess.Popen(
        ["sh", "-c", "\n".join(script)], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    failed = (tmp_path / "demo" / "failed").read_text().splitlines()
    # Of incomplete streams, as the page says.
    assert failed == [
        "FAILED 1 blkmig validate incomplete.bin",
        "FAILED 1 blkmig salvage broken.bin --device-size drive0=48M --to salvaged.bin",
        "FAILED 1 blkmig validate ../tests/captures --summary",
        "FAILED 1 find ../tests/captures -name 'classic-*.bin.gz' -print0 | "
        "blkmig validate --files-from - -0",
    ], errors


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_usage(name: str) -> None:
    assert example(name).err.startswith(f"usage: {name} ")
