"""Videos as folders of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sifa_zoo.video.load import VideoError, frame_times, load_frames, load_video, video_info


def write_pictures(folder, names, size=(40, 24), **save):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[..., 0] = 10 * i
        picture[: size[1] // 2, :, 1] = 200
        Image.fromarray(picture).save(folder / name, **save)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["00001.jpg", "00002.jpg", "00003.jpg"],
        ["img_00001.png", "img_00002.png", "img_00003.png"],
        ["1.png", "2.png", "10.png"],  # by number, not by letter
        ["frame9.JPEG", "frame10.JPEG", "frame11.JPEG"],
        ["a_7_cam2_1.bmp", "a_7_cam2_2.bmp", "a_7_cam2_11.bmp"],  # the last number counts
    ],
)
def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path, names):
    folder = write_pictures(tmp_path / "video", names)
    (folder / ".hidden").write_text("left out")
    (folder / "Thumbs.db").write_text("left out")
    frames = load_video(folder)
    assert frames.shape == (3, 24, 40, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose(frames[..., 0].mean((1, 2)), [0, 10, 20], atol=3)
    np.testing.assert_array_equal(load_video(str(folder), [2, 0, 2, 9]), frames[[2, 0, 2, 2]])
    assert load_video(folder, [], short_side=12).shape == (0, 12, 20, 3)


def test_info_and_times(tmp_path):
    folder = write_pictures(tmp_path / "video", ["1.jpg", "2.jpg"])
    info = video_info(folder)
    assert (info.num_frames, info.height, info.width, info.fps, info.duration_seconds) == (2, 24, 40, 0, 0)
    assert (info.codec, info.container, info.random_access) == ("jpeg", "folder", True)
    assert info.num_bytes == sum(path.stat().st_size for path in folder.iterdir())
    np.testing.assert_array_equal(frame_times(folder), [np.nan, np.nan])
    frames = load_frames(folder, [1, 5])
    np.testing.assert_array_equal(frames.numbers, [1, 1])
    assert np.isnan(frames.pts_seconds).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_short_side(tmp_path, suffix):
    folder = write_pictures(tmp_path / "video", [f"1.{suffix}", f"2.{suffix}"], size=(320, 240))
    small = load_video(folder, short_side=60)
    assert small.shape == (2, 60, 80, 3)
    np.testing.assert_allclose(small.mean((1, 2)), load_video(folder).mean((1, 2)), atol=2)


def test_pictures_are_brought_to_the_size_of_the_first(tmp_path):
    folder = write_pictures(tmp_path / "video", ["1.png"])
    write_pictures(folder, ["2.png"], size=(60, 60))
    assert load_video(folder).shape == (2, 24, 40, 3)
    assert load_video(folder, [1]).shape == (1, 24, 40, 3)


def test_turned_pictures_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    folder = write_pictures(tmp_path / "video", ["1.png"], exif=exif)
    assert (video_info(folder).height, video_info(folder).width) == (40, 24)
    upright = load_video(folder)[0]
    assert upright.shape == (40, 24, 3)
    assert (upright[:, 12:, 1] == 200).all()


def test_common_jpeg_is_what_pillow_gives(tmp_path):
    folder = write_pictures(tmp_path / "video", ["1.jpg", "2.jpg"], size=(320, 240), quality=95, subsampling=0)
    for name, frame in zip(("1.jpg", "2.jpg"), load_video(folder), strict=True):
        np.testing.assert_allclose(frame, np.asarray(Image.open(folder / name)), atol=4)


@pytest.mark.parametrize(("mode", "settings"), [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})])
def test_other_jpeg(tmp_path, mode, settings):
    picture = Image.fromarray(np.full((24, 40, 3), 120, np.uint8)).convert(mode)
    (tmp_path / "video").mkdir()
    picture.save(tmp_path / "video" / "1.jpg", **settings)
    np.testing.assert_allclose(load_video(tmp_path / "video"), 120, atol=3)


def test_a_truncated_jpeg_is_an_error(tmp_path):
    folder = write_pictures(tmp_path / "video", ["1.jpg"], size=(320, 240))
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:-100])
    with pytest.raises(VideoError, match=r"video: the picture '1.jpg' cannot be read \(image file is truncated"):
        load_video(folder)


def test_a_new_picture_is_seen(tmp_path):
    folder = write_pictures(tmp_path / "video", ["1.png"])
    assert video_info(folder).num_frames == 1
    write_pictures(folder, ["2.png"])
    assert video_info(folder).num_frames == 2


def test_error_names_folder_and_reason(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VideoError, match="empty: is a folder without pictures, expected a video file or a folder"):
        load_video(empty)
    mixed = write_pictures(tmp_path / "mixed", ["1.png"])
    (mixed / "notes.txt").write_text("junk")
    with pytest.raises(
        VideoError, match="mixed: is a folder with 'notes.txt' in it, expected a video file or a folder"
    ):
        video_info(mixed)
    broken = write_pictures(tmp_path / "broken", ["1.png", "2.png"])
    (broken / "2.png").write_bytes((broken / "2.png").read_bytes()[:60])
    with pytest.raises(VideoError, match=r"broken: the picture '2.png' cannot be read"):
        load_video(broken)
    (broken / "1.png").write_text("no picture")
    with pytest.raises(VideoError, match=r"broken: the picture '1.png' cannot be read"):
        load_video(broken)
