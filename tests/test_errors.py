import errno

import pytest

from diptych import errors
from diptych.errors import ConfigError, DiptychError, MissingFeatures, full_disk, nearest


def test_the_family_is_the_one_drawn() -> None:
    import diptych.client
    import diptych.detect.ocr  # noqa: F401

    family = {cls.__name__ for cls in DiptychError.__subclasses__()}
    general = {"FormatError", "MissingFeatures", "CheckpointMismatch", "ConfigError"}
    assert family == general | {"ReaderDied", "ServiceError"}  # of other processes
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in family)


def test_missing_features_shows_five_keys_in_order() -> None:
    message = str(MissingFeatures([f"image{n}" for n in range(9, 0, -1)], "features/memes"))
    assert message.startswith(
        "9 image(s) have no regions in features/memes: image1, image2, image3, image4, image5, ..."
    )
    assert "diptych import" in message
    assert "image2." in str(MissingFeatures({"image2"}, "store"))


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("unitre", " Did you mean 'uniter'?"), ("UNITER", ""), ("", ""), ("oscra", " Did you mean 'oscar'?")],
)
def test_nearest_suggests_only_what_is_close(name: str, suggestion: str) -> None:
    assert nearest(name, iter(["uniter", "oscar", "lxmert"])) == suggestion


def test_a_full_disk_is_found_behind_an_error_and_a_circle_ends() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapper = ConfigError("cannot be called")
    wrapper.__cause__ = full
    assert full_disk(wrapper) is full
    full.errno, full.__context__ = errno.EACCES, wrapper
    assert full_disk(wrapper) is None
    assert full_disk(None) is None
