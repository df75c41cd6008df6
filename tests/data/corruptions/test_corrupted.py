"""Corrupted images are the same every time, and further from what they were the more severe."""

from zlib import crc32

import numpy as np
import pytest

from tsv_bench.data.corruptions.corrupted import Corruptions, corrupt, in_parts
from tsv_bench.data.corruptions.definitions import CORRUPTIONS, SEVERITIES, VERSION


@pytest.fixture(scope="module")
def images():
    """Blocks of four pixels in all colours, uint8 [images, 3, size, size]."""
    coarse = np.random.default_rng(1).integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)[..., :30, :30]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_keep_their_form_and_change_more_with_each_severity(images, name):
    before = images.copy()
    found = [corrupt(images, name, severity) for severity in (0, *SEVERITIES)]
    assert np.array_equal(images, before), "what was given has changed"
    assert all(x.shape == images.shape and x.dtype == np.uint8 for x in found)
    assert np.array_equal(found[0], images) and not np.shares_memory(found[0], images)
    away = [np.abs(x.astype(int) - images).mean() for x in found]
    if name == "pixelate":  # which pixels a box takes depends on how sizes fit
        assert away[-1] == max(away) > 0
    else:
        assert away == sorted(away) and away[1] > 0


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_by_its_place_alone(images, name):
    whole = corrupt(images, name, 3)
    assert np.array_equal(corrupt(images[3:], name, 3, start=3), whole[3:])
    parts = dict(enumerate(in_parts(images, name, 3, part=3)))
    assert [rows for rows, _ in parts.values()] == [slice(0, 3), slice(3, 6), slice(6, 8)]
    assert np.array_equal(np.concatenate([pixels for _, pixels in parts.values()]), whole)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "fog"])
def test_each_image_has_chance_of_its_own(images, name):
    same = np.repeat(images[:1], 2, axis=0)
    first, second = corrupt(same, name, 5)
    assert not np.array_equal(first, second)


def test_what_chance_decides_goes_by_name_and_place(images):
    """As said where Runs are compared: the numbers of any other version would be others."""
    rngs = [np.random.default_rng([crc32(b"gaussian_noise"), place]) for place in (5, 6)]
    noise = np.stack([rng.standard_normal((30, 30, 3)) for rng in rngs])
    for severity, scale in ((1, 0.04), (5, 0.1)):
        noisy = np.clip(np.moveaxis(images[:2], 1, -1) / 255 + scale * noise, 0, 1)
        found = np.moveaxis(corrupt(images[:2], "gaussian_noise", severity, start=5), 1, -1)
        np.testing.assert_array_equal(found, np.floor(noisy * 255 + 1e-6))


def test_whole_bytes_are_not_lowered_by_rounding():
    """A gray image has no contrast to lose; k / 255 * 255 lies below k for some k."""
    gray = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1) * np.ones((1, 3, 2, 2), np.uint8)
    for name in ("contrast", "zoom_blur", "defocus_blur", "motion_blur", "pixelate"):
        assert np.array_equal(corrupt(gray, name, 3), gray), name


def test_settings_tell_all_that_changes_the_images():
    found = Corruptions(("fog", "contrast"), 2).settings
    assert found == {"names": ["fog", "contrast"], "severity": 2, "version": VERSION}


@pytest.mark.parametrize(
    "names, severity, message",
    [
        (["fog", "frost"], 3, "names 'frost', which is no corruption; there are gaussian_noise"),
        (["fog", "fog"], 3, "names fog twice"),
        (["fog"], 0, "evaluation.severity=0 is not one of 1, 2, 3, 4 and 5"),
        (["fog"], True, "evaluation.severity=True"),
        (["fog"], 2.0, "evaluation.severity=2.0"),
    ],
)
def test_wrong_corruptions_are_refused(names, severity, message):
    with pytest.raises(ValueError, match=message):
        Corruptions(names, severity)
