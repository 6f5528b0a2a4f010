"""A disk to send, and the errors for records past a disk's end."""

from blkmig_cli.disks.disk import image_too_small, past_end
from blkmig_cli.errors import FailureError, IncompleteError


def test_a_record_past_the_end() -> None:
    error = past_end("d", 2048, 99, 1000)
    assert isinstance(error, IncompleteError)
    assert (error.check, error.offset, error.device) == ("sector-past-end", 99, "d")
    assert str(error) == (
        "a record lies past the disk's end at byte 1000 (at byte 99, section 'block', device 'd', "
        "sector 2048); check --device-size"
    )


def test_an_image_that_is_too_small() -> None:
    error = image_too_small("d", 2048, 99, 1000)
    assert isinstance(error, FailureError)
    assert (error.check, error.offset, error.device) == ("input-failed", 99, "d")
    assert str(error) == (
        "a record lies past the disk's end at byte 1000 (at byte 99, section 'block', device 'd', "
        "sector 2048); use a larger image, or check --device-size"
    )
