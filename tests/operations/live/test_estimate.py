"""The prediction of a guest's pause."""

from blkmig_cli.operations.live.estimate import Estimate

MIB = 1 << 20


def test_what_is_measured_counts_twice() -> None:
    estimate = Estimate()
    estimate.add_fixed(0.01)
    estimate.add_reading(100 * MIB, 0.5)
    assert estimate.rate == 200 * MIB
    assert abs(estimate.pause(0) - 0.02) < 1e-9
    assert abs(estimate.pause(20 * MIB) - 0.22) < 1e-9


def test_before_anything_is_measured() -> None:
    assert Estimate().pause(100 * MIB) == 2.0


def test_the_last_measurements_count_more() -> None:
    estimate = Estimate()
    estimate.add_reading(100 * MIB, 1.0)
    estimate.add_reading(100 * MIB, 4.0)
    assert 25 * MIB < estimate.rate < 40 * MIB
    estimate.add_fixed(0.1)
    estimate.add_fixed(0.02)
    assert estimate.pause(0) == 0.1
    estimate.add_fixed(0.2)
    assert estimate.pause(0) == 0.4


def test_a_little_says_nothing_of_the_rate() -> None:
    estimate = Estimate()
    estimate.add_reading(MIB, 0.01)
    before = estimate.rate
    estimate.add_reading(512, 1.0)
    estimate.add_reading(0, 0.0)
    assert estimate.rate == before
