"""Frames are shown as players show them: turned, mirrored, stretched and cropped, at times that rise."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import unusual_display as unusual
from PIL import Image
from unusual_display import Encoding

from sifa_zoo.video import cache
from sifa_zoo.video.load import frame_times, load_frames, load_video, video_info

UPRIGHT = "+1+0+0+1"
QUARTER, MIRRORED_QUARTER = "+0+1-1+0", "+0+1+1+0"
CROP = (14, 6, 6, 10)  # left, top, right, bottom


@pytest.fixture(autouse=True)
def _forget_indices():
    cache.forget_memory()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return unusual.write(tmp_path_factory.mktemp("display") / "plain.mp4")


def crop(images: np.ndarray) -> np.ndarray:
    left, top, right, bottom = CROP
    return images[:, top : images.shape[1] - bottom, left : images.shape[2] - right]


def check_frames(path, expected: np.ndarray) -> None:
    """All frames, single ones and pairs, from a fresh state and afterwards; and what is said of their size."""
    for numbers in ([2], [0, 2], [21, 13]):
        cache.forget_memory()
        for _ in range(2):
            np.testing.assert_array_equal(load_video(path, numbers), expected[numbers])
    np.testing.assert_array_equal(load_video(path), expected)
    info = video_info(path)
    assert (info.num_frames, info.height, info.width) == expected.shape[:3]


def test_there_are_eight_orientations():
    assert len(unusual.ORIENTATIONS) == 8
    assert {UPRIGHT, QUARTER, MIRRORED_QUARTER} < set(unusual.ORIENTATIONS)


@pytest.mark.parametrize("orientation", unusual.ORIENTATIONS)
def test_display_matrix(plain, tmp_path, orientation):
    path = unusual.orient(plain, tmp_path / "oriented.mp4", orientation)
    expected = unusual.as_shown(unusual.stored_pixels(plain), orientation)
    check_frames(path, expected)
    small = load_video(path, [13], short_side=24)
    np.testing.assert_array_equal(small, unusual.as_shown(load_video(plain, [13], short_side=24), orientation))


RATIOS = [  # sample aspect ratio -> height and width shown, and those with a short side of 24
    (Fraction(64, 45), (48, 114), (24, 57)),
    (Fraction(16, 11), (48, 116), (24, 58)),
    (Fraction(8, 9), (54, 80), (24, 36)),
    (Fraction(1, 2), (96, 80), (29, 24)),
    (Fraction(1), (48, 80), (24, 40)),
]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(("ratio", "size", "small_size"), RATIOS, ids=lambda value: str(value).replace("/", ":"))
def test_sample_aspect_ratio(tmp_path, suffix, ratio, size, small_size):
    path = unusual.write(tmp_path / f"stretched.{suffix}", Encoding(sample_aspect_ratio=ratio))
    check_stretched(load_video(path, [2, 13]), unusual.stored_pixels(path)[[2, 13]], size)
    info = video_info(path)
    assert (info.height, info.width) == size
    small = load_video(path, [13], short_side=24)
    assert small.shape[1:3] == small_size


def check_stretched(images: np.ndarray, stored: np.ndarray, size: tuple[int, int]) -> None:
    assert images.shape[1:3] == size
    expected = [Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR) for image in stored]
    assert np.abs(images - np.stack(expected).astype(float)).mean() < 10  # of the next frame: 14 and more


def test_a_stretched_picture_is_turned_afterwards(tmp_path):
    stretched = unusual.write(tmp_path / "stretched.mp4", Encoding(sample_aspect_ratio=Fraction(64, 45)))
    path = unusual.orient(stretched, tmp_path / "turned.mp4", QUARTER)
    stored = unusual.as_shown(unusual.stored_pixels(stretched)[[2, 13]], QUARTER)
    check_stretched(load_video(path, [2, 13]), stored, (114, 48))
    assert (video_info(path).height, video_info(path).width) == (114, 48)


def test_clean_aperture(plain, tmp_path):
    path = unusual.add_clean_aperture(plain, tmp_path / "clap.mp4", CROP)
    check_frames(path, crop(unusual.stored_pixels(plain)))


@pytest.mark.parametrize("orientation", [QUARTER, MIRRORED_QUARTER])
def test_a_clean_aperture_is_turned_afterwards(plain, tmp_path, orientation):
    cropped = unusual.add_clean_aperture(plain, tmp_path / "clap.mp4", CROP)
    path = unusual.orient(cropped, tmp_path / "turned.mp4", orientation)
    check_frames(path, unusual.as_shown(crop(unusual.stored_pixels(plain)), orientation))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_cropping_by_the_codec(plain, tmp_path, suffix):
    params = f"{Encoding().params}:crop-rect={','.join(map(str, CROP))}"
    path = unusual.write(tmp_path / f"cropped.{suffix}", Encoding(params=params))
    check_frames(path, crop(unusual.stored_pixels(plain)))


def test_a_stream_without_packets_is_not_chosen(tmp_path):
    path = tmp_path / "two.mkv"
    encoding, images = Encoding(), unusual.pictures()
    with av.open(str(path), "w") as container:
        encoding.add_to(container, 96, 160)
        stream = encoding.add_to(container, *images.shape[1:3])
        for frame in [*encoding.frames(images), None]:
            container.mux(stream.encode(frame))
    check_frames(path, unusual.stored_pixels(unusual.write(tmp_path / "one.mkv")))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_stream_flagged_as_default(tmp_path, suffix):
    small, large = unusual.pictures(24, 32, 48), unusual.pictures()
    path = unusual.write_two_streams(tmp_path / f"two.{suffix}", small, large)
    with av.open(str(path)) as container:
        chosen = container.streams.best("video")
        expected = np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(chosen)])
    assert expected.shape[1:3] == (48, 80)
    check_frames(path, expected)


def check_even_times(path, num_frames: int) -> None:
    assert video_info(path).num_frames == num_frames
    for complete in (False, True):
        times = frame_times(path, complete=complete)
        assert len(times) == num_frames
        np.testing.assert_allclose(np.diff(times), 1 / unusual.RATE, atol=1e-4)
    assert video_info(path).fps == pytest.approx(unusual.RATE, rel=1e-3)
    assert not video_info(path).variable_rate
    np.testing.assert_array_equal(load_frames(path, [num_frames - 1]).pts_seconds, times[-1:])


@pytest.mark.parametrize("num_parts", [2, 3])
def test_times_go_on_where_streams_were_joined(tmp_path, num_parts):
    part = unusual.write(tmp_path / "part.ts")
    path = unusual.join(tmp_path / "joined.ts", *num_parts * [part])
    check_even_times(path, num_parts * unusual.NUM_FRAMES)
    check_frames(path, np.concatenate(num_parts * [unusual.stored_pixels(part)]))


def test_times_go_on_where_a_later_stream_was_put_first(tmp_path):
    later = unusual.write(tmp_path / "later.ts", Encoding(first_pts=1000))
    sooner = unusual.write(tmp_path / "sooner.ts")
    check_even_times(unusual.join(tmp_path / "joined.ts", later, sooner), 2 * unusual.NUM_FRAMES)


def test_times_go_on_where_the_clock_wraps(tmp_path):
    check_even_times(unusual.write_wrapping_clock(tmp_path / "wraps.ts"), unusual.NUM_FRAMES)


def test_rotation_that_only_keyframes_carry(plain, tmp_path):
    path = unusual.write_rotation_in_keyframes(tmp_path / "keyframes.ts")
    with av.open(str(path)) as container:
        turns = [frame.rotation for frame in container.decode(video=0)]
    assert turns[:2] == [90, 0]
    check_frames(path, np.rot90(unusual.stored_pixels(plain), axes=(1, 2)))


@pytest.mark.parametrize("transfer", unusual.HDR)
def test_hdr_is_read(tmp_path, transfer):
    path = unusual.write_hdr(tmp_path / "hdr.mp4", transfer)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.color_trc) == ("yuv420p10le", unusual.HDR[transfer])
    assert load_video(path, [13]).shape == (1, unusual.HEIGHT, unusual.WIDTH, 3)


@pytest.mark.parametrize("suffix", ["h264", "ts"])
def test_frames_of_another_size_are_scaled_to_the_first_of_the_video(tmp_path, suffix):
    wide = unusual.write(tmp_path / f"wide.{suffix}")
    tall = unusual.write(tmp_path / f"tall.{suffix}", images=unusual.pictures(height=96, width=64))
    path = unusual.join(tmp_path / f"both.{suffix}", wide, tall)
    first, second = unusual.stored_pixels(wide), unusual.stored_pixels(tall)
    num_frames = len(first)
    for numbers in ([num_frames + 3], [num_frames + 3, 1], [1, num_frames + 3]):
        cache.forget_memory()
        for number, image in zip(numbers, load_video(path, numbers), strict=True):
            if number < num_frames:
                np.testing.assert_array_equal(image, first[number])
            else:
                check_stretched(image[None], second[number - num_frames][None], first.shape[1:3])
    assert load_video(path).shape == (2 * num_frames, *first.shape[1:])
    assert load_video(path, [num_frames + 3], short_side=24).shape == (1, 24, 40, 3)
