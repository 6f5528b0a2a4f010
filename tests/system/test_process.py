"""Signals that end blkmig, closed pipes, and standard descriptors that are closed or full."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from blkmig_cli.commands import cli
from blkmig_cli.errors import FailureError, Interruption
from blkmig_cli.system.overlap import Overlap
from blkmig_cli.system.process import join
from blkmig_cli.transport.sinks import Sink
from tests.conftest import Run, fails
from tests.support import raw

BLKMIG = [sys.executable, "-m", "blkmig_cli"]
STREAM = raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=b"\5" * raw.CHUNK))
SCRUB = [*BLKMIG, "scrub", "-", "--device-size", "2M", "-q"]

SIGNALS = {
    signal.SIGINT: (130, "blkmig: interrupted\n"),
    signal.SIGTERM: (143, "blkmig: terminated\n"),
}


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


class AtWork:
    """``blkmig scrub - --to out``, which waits for the rest of its stream."""

    def __init__(self, folder: Path, target: str = "out", ignored: int | None = None) -> None:
        self.folder = folder

        def prepare() -> None:
            if ignored is not None:
                signal.signal(ignored, signal.SIG_IGN)

        self.process = subprocess.Popen(
            [*SCRUB, "--to", target],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            preexec_fn=prepare,  # noqa: PLW1509 (there are no threads)
        )
        assert self.process.stdin is not None
        self.process.stdin.write(STREAM[:-100])
        self.process.stdin.flush()

    def wait_for(self, pattern: str) -> Path:
        while not (found := list(self.folder.glob(pattern))):
            assert self.process.poll() is None
        return found[0]

    def end(self, rest: bytes = b"") -> tuple[int, str]:
        """Exit status, stderr."""
        _, errors = self.process.communicate(rest, timeout=60)
        return self.process.returncode, errors.decode()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("there", [False, True])
def test_a_signal_leaves_no_temporary_file(
    tmp_path: Path, number: signal.Signals, there: bool
) -> None:
    if there:
        (tmp_path / "out").write_bytes(b"old")
    work = AtWork(tmp_path)
    work.wait_for(".blkmig-*")
    work.process.send_signal(number)
    assert work.end() == SIGNALS[number]
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])
    assert not there or (tmp_path / "out").read_bytes() == b"old"


def test_an_interruption_while_the_program_is_loading() -> None:
    script = """if True:
        import os, signal, sys
        class Finder:
            def find_spec(self, name, *_):
                if name == "click":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Finder())
        from blkmig_cli.__main__ import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    """As nohup does, and shells for their background jobs."""
    work = AtWork(tmp_path, ignored=number)
    work.wait_for(".blkmig-*")
    work.process.send_signal(number)
    assert work.end(STREAM[-100:]) == (0, "")
    assert (tmp_path / "out").read_bytes() == STREAM


def test_a_signal_ends_the_command_that_is_the_target(tmp_path: Path) -> None:
    work = AtWork(tmp_path, "exec:echo $$ > pid; exec cat > out")
    pid = work.wait_for("pid")
    while not (text := pid.read_text()).endswith("\n"):
        pass
    work.process.send_signal(signal.SIGTERM)
    assert work.end() == SIGNALS[signal.SIGTERM]
    with pytest.raises(ProcessLookupError):
        os.kill(int(text), 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_it_waits_for_a_peer(tmp_path: Path, number: signal.Signals) -> None:
    command = [*BLKMIG, "validate", f"unix:{tmp_path}/s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for a stream at" in process.stderr.readline()
        process.send_signal(number)
        assert process.stderr.read() == SIGNALS[number][1]
    assert process.returncode == SIGNALS[number][0]
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, signal
from blkmig_cli.errors import Interruption
from blkmig_cli.system.process import interruptible
with interruptible():
    try:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            print("cleaned up")
            os.kill(os.getpid(), signal.SIGINT)
            print("not reached")
    except Interruption as error:
        print(error, error.exit_status, error.__context__)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


def test_the_second_of_two_signals_does_not_disturb_the_clean_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["cleaned up", "interrupted 130 terminated", "True", "True"]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "blkmig: interrupted"),
        (Interruption(signal.SIGINT), 130, "blkmig: interrupted"),
        (Interruption(signal.SIGTERM), 143, "blkmig: terminated"),
        (FailureError("x: failed"), 4, "blkmig: x: failed"),
    ],
)
@pytest.mark.parametrize("notes", [[], ["y is left", "go on with --resume"]])
def test_files_that_remain_are_named_on_the_same_line(
    stream: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    line: str,
    notes: list[str],
) -> None:
    def flush(_: Sink) -> None:
        for note in notes:
            error.add_note(note)
        raise error

    monkeypatch.setattr(Sink, "flush", flush)
    outcome = run("scrub", stream, "--device-size", "2M", "--to", stream.with_name("t"), "-q")
    fails(outcome, status, "; ".join([line, *notes]) + "\n")
    assert list(stream.parent.iterdir()) == [stream]


def test_results_come_before_the_error(stream: Path) -> None:
    """What is known is on stdout before the line on stderr says why there is no more."""
    stream.write_bytes(STREAM[:-5])
    done = subprocess.run(
        [*BLKMIG, "dump", stream],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].startswith("blkmig: ")


# -- standard descriptors


@contextmanager
def closed_pipe() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "words",
    [
        ["validate", "s.bin"],
        ["dump", "s.bin", "--output", "jsonl"],
        ["scrub", "s.bin", "--device-size", "2M", "-q"],
        ["--version"],
        ["--help"],
    ],
)
def test_a_closed_pipe_is_quiet(stream: Path, words: list[str]) -> None:
    with closed_pipe() as stdout:
        done = subprocess.run(
            [*BLKMIG, *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            cwd=stream.parent,
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("status", [2, 4])
def test_a_closed_stderr_does_not_change_the_status(stream: Path, status: int) -> None:
    words = {2: ["scrub", "s.bin", "--to", "s.bin"], 4: ["dump", "away"]}
    with closed_pipe() as stderr:
        done = subprocess.run(
            [*BLKMIG, *words[status]],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,
            cwd=stream.parent,
        )
    assert done.returncode == status


def shell(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m blkmig_cli {words}"
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.mark.parametrize(
    "words",
    [
        "validate s.bin",
        pytest.param("dump s.bin", marks=pytest.mark.long),
        "scrub s.bin --device-size 2M -q",
    ],
)
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_stdout_that_is_full_or_closed(stream: Path, words: str, redirection: str) -> None:
    done = shell(f"{words} {redirection}", stream.parent)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr or "Bad file descriptor" in done.stderr


@pytest.mark.parametrize("words", ["dump -", "build - --to out", "compare s.bin -"])
def test_a_closed_stdin(stream: Path, words: str) -> None:
    """No file that is opened gets the number of stdin: it would be read in its place."""
    done = shell(f"{words} <&-", stream.parent)
    assert done.returncode == 4
    assert "Bad file descriptor" in done.stderr
    assert list(stream.parent.iterdir()) == [stream]


def test_a_closed_stderr_takes_nothing(stream: Path) -> None:
    done = shell("scrub s.bin --device-size 2M --to out 2>&-", stream.parent)
    assert done.returncode == 0
    assert stream.with_name("out").read_bytes() == STREAM


def test_a_target_is_not_a_terminal(stream: Path) -> None:
    ours, theirs = os.openpty()
    try:
        for more in ([], ["--to", "-"]):
            done = subprocess.run(
                [*BLKMIG, "scrub", stream, "--device-size", "2M", "-q", *more],
                stdout=theirs,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert done.returncode == 2
            assert "refusing to write binary data to a terminal; use --to FILE" in done.stderr
    finally:
        os.close(ours)
        os.close(theirs)


def test_nothing_of_the_process_is_changed_by_a_command() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    assert CliRunner().invoke(cli, ["--version"]).exit_code == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("given", [None, "4"])
def test_commands_have_the_environment_of_the_user(
    stream: Path, tmp_path: Path, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy is kept from starting threads, but no program that is started here."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    show = "echo ${OPENBLAS_NUM_THREADS-none}"
    for words in (
        ["validate", f"exec:{show} >found; cat {stream}"],
        [
            "scrub",
            str(stream),
            "--device-size",
            "2M",
            "--to",
            f"exec:{show} >found; cat >/dev/null",
        ],
    ):
        line = [sys.executable, "-m", "blkmig_cli", *words]
        subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "found").read_text() == f"{given or 'none'}\n"


def test_no_thread_is_started_to_read_a_stream(
    stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    program = (
        "import os, sys; from blkmig_cli.commands import main; sys.argv[0] = 'blkmig'\n"
        "try: main()\n"
        "except SystemExit: print(len(os.listdir('/proc/self/task')), file=sys.stderr)"
    )
    line = [sys.executable, "-c", program, "validate", str(stream), "--device-size", "2M"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr == "1\n"


def test_a_thread_that_was_not_started_is_not_waited_for() -> None:
    """A signal came before it was."""
    over: list[int] = []
    join(Thread(target=over.append, args=(1,)))
    assert over == []
    thread = Thread(target=over.append, args=(1,))
    thread.start()
    join(thread)
    assert over == [1]
    with Overlap() as overlap, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thread, "start", lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            overlap.submit("x", 0, 1, lambda: None)
