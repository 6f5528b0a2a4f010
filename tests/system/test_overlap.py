"""Jobs on ranges: those that overlap run in order, all have ended on exit, and errors are raised in order."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.system.overlap import Overlap
from tests.support.long import examples


@settings(max_examples=examples(21, 1000), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(1, 8)), max_size=40))
def test_the_last_one_wins(jobs: list[tuple[int, int, int]]) -> None:
    targets = [bytearray(30), bytearray(30)]
    expected = [bytearray(30), bytearray(30)]
    with Overlap() as overlap:
        for number, (target, start, length) in enumerate(jobs, 1):

            def job(target: int = target, start: int = start, length: int = length,
                    number: int = number) -> None:  # fmt: skip
                for at in range(start, start + length):
                    targets[target][at] = number

            overlap.submit(targets[target], start, start + length, job)
            expected[target][start : start + length] = bytes([number]) * length
        overlap.drain()
        assert targets == expected


def test_waiting_for_a_range() -> None:
    gate, done = threading.Event(), list[int]()
    target, other = object(), object()

    def job() -> None:
        gate.wait()
        done.append(1)

    with Overlap() as overlap:
        overlap.submit(target, 0, 10, job)
        overlap.wait(target, 10, 20)
        overlap.wait(other, 0, 10)
        assert not done
        gate.set()
        overlap.wait(target, 9, 10)
        assert done == [1]


def test_the_first_error_in_the_stream() -> None:
    gate = threading.Event()

    def fail(text: str, *, last: bool) -> None:
        if last:
            gate.set()
        else:
            gate.wait()
        raise ValueError(text)

    overlap = Overlap()
    with overlap:
        overlap.submit(None, 0, 1, lambda: fail("first", last=False))
        overlap.submit(None, 1, 2, lambda: fail("second", last=True))
        for _ in overlap._threads:
            overlap._jobs.put(None)
        for thread in overlap._threads:
            thread.join()
        with pytest.raises(ValueError, match="first"):
            overlap.drain()


def test_all_have_ended_on_exit() -> None:
    done: list[int] = []

    def run() -> None:
        with Overlap() as overlap:
            for at in range(5):
                overlap.submit(None, at, at + 1, lambda at=at: done.append(at))  # type: ignore[misc]
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert sorted(done) == list(range(5))
    assert threading.active_count() == before
