"""Our reader against torchcodec, decord and OpenCV: CPU seconds and wall time per clip, on the same files and draws.

    python benchmarks/bench_decode.py [VIDEO ...] [--json FILE] [--rounds N] [--soak N] [--no-loader]

A clip is 16 frames at stride 4 from a random start, or the middles of 8 uniform segments, scaled to a short side of
256. Each reader opens the file for each clip, as a data set does, decodes with one thread and scales in the cheapest
way that it has; torchcodec counts with the faster of its two seek modes. Ours has its index already, as in all epochs
but the first; "first" is the time with the index still to be built. Rounds are interleaved, figures are medians, CPU
seconds are those of all threads of the process. A wrong frame is one that looks more like another frame of a sequential
decode than like its own; ours must equal its own bit for bit.

Besides the videos given, others are written: MPEG-4 in AVI, H.264 with long and short groups, with and without
B-frames, 240p to 1080p. Readers that are not installed are named and left out.

Last comes what a second process adds to the loader, to bare processes and to arithmetic; see loader_scaling.py.
"""

from __future__ import annotations

import importlib
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV is not to talk

import av
import numpy as np
import torch
from loader_scaling import describe, scaling
from measure import benchmark_parser, machine, markdown_table, write_json
from torch.utils.data import Dataset

from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.video import cache
from sifa_zoo.video.cache import find_index
from sifa_zoo.video.container import find_file
from sifa_zoo.video.load import load_video, video_info
from sifa_zoo.video.scaling import Display, Scaler

SHORT_SIDE = 256
DRAWS = {
    "dense": {"num_frames": 16, "frame_stride": 4},
    "uniform": {"num_frames": 8, "sampling": "uniform"},
}
GENERATED = {  # file: codec, (width, height), frames, options
    "mpeg4_320x240.avi": ("mpeg4", (320, 240), 240, {"g": "12", "qscale": "4"}),
    "h264_320x240_no_b.mp4": ("libx264", (320, 240), 300, {"g": "50", "bf": "0", "crf": "23"}),
    "h264_340x256_long.mp4": ("libx264", (340, 256), 300, {"g": "250", "bf": "3", "crf": "23"}),
    "h264_340x256_short.mp4": ("libx264", (340, 256), 300, {"g": "12", "bf": "2", "crf": "23"}),
    "h264_1280x720_long.mp4": ("libx264", (1280, 720), 240, {"g": "250", "bf": "3", "crf": "23"}),
    "h264_1280x720_no_b.mp4": ("libx264", (1280, 720), 240, {"g": "60", "bf": "0", "crf": "23"}),
    "h264_1920x1080_short.mp4": ("libx264", (1920, 1080), 120, {"g": "30", "bf": "2", "crf": "23"}),
}

Reader = Callable[[str, Sequence[int], tuple[int, int] | None], np.ndarray]  # size: height and width, None: as stored


def ours(path: str, frames: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
    return load_video(path, frames, None if size is None else min(size))


def torchcodec(mode: str) -> Reader:
    decoders = importlib.import_module("torchcodec.decoders")
    transforms = importlib.import_module("torchcodec.transforms")

    def read(path: str, frames: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        resize = [] if size is None else [transforms.Resize(size)]
        decoder = decoders.VideoDecoder(
            path, seek_mode=mode, dimension_order="NHWC", num_ffmpeg_threads=1, transforms=resize
        )
        return decoder.get_frames_at(list(frames)).data.numpy()

    return read


def decord() -> Reader:
    library = importlib.import_module("decord")
    library.logging.set_level(library.logging.ERROR)

    def read(path: str, frames: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        height, width = size or (-1, -1)
        reader = library.VideoReader(path, width=width, height=height, num_threads=1)
        return reader.get_batch(list(frames)).asnumpy()

    return read


def opencv() -> Reader:
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def read(path: str, frames: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        out = []
        position = frames[0]
        if position:
            capture.set(cv2.CAP_PROP_POS_FRAMES, position)
        for frame in frames:
            while position <= frame and capture.grab():
                position += 1
            found, image = capture.retrieve()
            if not found:
                break
            if size is not None:
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
            out.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        capture.release()
        return np.stack(out)

    return read


READERS: dict[str, Callable[[], Reader]] = {
    "ours": lambda: ours,
    "torchcodec exact": lambda: torchcodec("exact"),
    "torchcodec approximate": lambda: torchcodec("approximate"),
    "decord": decord,
    "opencv": opencv,
}


def available() -> dict[str, Reader]:
    readers = {}
    for name, make in READERS.items():
        try:
            readers[name] = make()
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
    return readers


def write_video(path: Path, codec: str, size: tuple[int, int], num_frames: int, options: dict[str, str]) -> None:
    """A textured picture that drifts, under patches that drift otherwise."""
    width, height = size
    generator = np.random.default_rng(0)
    texture = np.zeros((height + 64, width + num_frames + 64, 3))
    for scale in (4, 16, 64):
        coarse = generator.normal(
            0, 12 * math.sqrt(scale), (texture.shape[0] // scale + 2, texture.shape[1] // scale + 2, 3)
        )
        fine = torch.nn.functional.interpolate(
            torch.from_numpy(coarse).permute(2, 0, 1)[None], texture.shape[:2], mode="bicubic"
        )
        texture += fine[0].permute(1, 2, 0).numpy()
    texture = np.clip(texture / 4 + 128, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(num_frames):
            picture = texture[:height, i : i + width].copy()
            for patch in range(3):
                y = int((height - 64) * (0.5 + 0.5 * math.sin(i / (17 + 5 * patch) + patch)))
                x = (37 * patch + 3 * i) % (width - 64)
                picture[y : y + 48, x : x + 48] = texture[60 * patch : 60 * patch + 48, -60:-12]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def decode_all(path: str, display: Display) -> list[np.ndarray]:
    """All frames in order, as players show them with that display; as stored, with the usual one."""
    scaler = Scaler()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = container.decode(stream)
        return [scaler.to_rgb(frame, display.size(frame.height, frame.width), display).copy() for frame in frames]


def draw(path: str, kind: str, seed: int) -> list[int]:
    generator = random.Random(seed) if kind == "dense" else None
    return clip_indices(video_info(path).num_frames, **DRAWS[kind], generator=generator)


def count_wrong(read: Reader, truth: list[np.ndarray], path: str, draws: list[list[int]], exact: bool) -> int:
    wrong = 0
    for frames in draws:
        images = read(path, frames, None)
        wrong += len(frames) - len(images)
        for number, image in zip(frames, images, strict=False):
            if exact:
                wrong += not np.array_equal(image, truth[number])
                continue
            near = range(max(0, number - 6), min(len(truth), number + 7))
            distance = {i: np.abs(image[::4, ::4].astype(np.int16) - truth[i][::4, ::4]).mean() for i in near}
            wrong += bool(distance[number] > min(distance.values()) + 0.25)
    return wrong


def milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall time."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def measure(path: str, kind: str, readers: dict[str, Reader], rounds: int) -> dict:
    info = video_info(path)
    size = Display().size(info.height, info.width, short_side=SHORT_SIDE)
    truth, display = decode_all(path, Display()), find_index(find_file(path)).display
    shown = truth if display == Display() else decode_all(path, display)
    checked = [draw(path, kind, seed) for seed in range(3)]
    row: dict = {"file": Path(path).name, "draw": kind, "cpu_ms": {}, "wall_ms": {}, "wrong": {}}
    works = {}
    for name, read in readers.items():
        try:
            row["wrong"][name] = (
                count_wrong(read, shown, path, checked, exact=True)
                if name == "ours"
                else count_wrong(read, truth, path, checked, exact=False)
            )
            works[name] = read
        except Exception as error:  # whatever a reader raises at an odd file
            row["wrong"][name] = f"failed: {str(error).splitlines()[0][:80]}"
    row["asked"] = sum(map(len, checked))
    del truth, shown
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for seed in range(rounds):
        frames = draw(path, kind, seed)
        for name in sorted(works, key=lambda name: hash((name, seed))):
            costs[name].append(milliseconds(lambda read=works[name], frames=frames: read(path, frames, size)))
    for name, values in costs.items():
        row["cpu_ms"][name], row["wall_ms"][name] = map(statistics.median, zip(*values, strict=True))
    row["first_cpu_ms"] = statistics.median(_first_cpu_ms(path, draw(path, kind, seed)) for seed in range(5))
    for what in ("cpu_ms", "wall_ms"):
        others = {name: value for name, value in row[what].items() if name != "ours"}
        if others:
            row[f"best_{what}"] = min(others, key=others.__getitem__)
            row[f"ratio_{what}"] = min(others.values()) / row[what]["ours"]
    return row


def _first_cpu_ms(path: str, frames: list[int]) -> float:
    cache.forget(path)
    return milliseconds(lambda: (video_info(path), load_video(path, frames, SHORT_SIDE)))[0]


class Clips(Dataset):
    """Clips of the files in turn, as arrays."""

    def __init__(self, paths: list[str], length: int) -> None:
        self.paths = paths
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        path = self.paths[index % len(self.paths)]
        return int(load_video(path, draw(path, "dense", index), SHORT_SIDE)[0, 0, 0, 0])


def soak(paths: list[str], draws: int) -> list[float]:
    """Resident MB at the start (after 100 draws), in the middle and at the end."""
    marks = []
    for i in range(draws + 100):
        if i in (100, 100 + draws // 2):
            marks.append(_resident())
        path = paths[i % len(paths)]
        load_video(path, draw(path, "dense", i), SHORT_SIDE)
    return [*marks, _resident()]


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def table(rows: list[dict], names: list[str]) -> str:
    head = ["file", "draw", "ours, CPU ms", "first", *names[1:], "best / ours, CPU", "wall", "wrong frames"]
    lines = []
    for row in rows:
        cells = [row["file"], row["draw"], f"{row['cpu_ms']['ours']:.1f}", f"{row['first_cpu_ms']:.1f}"]
        cells += [f"{row['cpu_ms'][name]:.1f}" if name in row["cpu_ms"] else "-" for name in names[1:]]
        cells += [f"{row.get('ratio_cpu_ms', math.nan):.2f}", f"{row.get('ratio_wall_ms', math.nan):.2f}"]
        wrong = [f"{name} {count}" for name, count in row["wrong"].items() if count]
        cells += [", ".join(wrong) + f" of {row['asked']}" if wrong else "none"]
        lines.append(cells)
    return markdown_table(head, lines)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("videos", nargs="*", help="real videos")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only-given", action="store_true", help="write no videos")
    parser.add_argument("--no-loader", action="store_true", help="do not measure the loader")
    parser.add_argument("--soak", type=int, default=0, help="draws during which memory is watched")
    args = parser.parse_args()
    torch.set_num_threads(1)
    readers = available()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SIFA_ZOO_CACHE"] = folder
        paths = list(args.videos)
        for name, settings in {} if args.only_given else GENERATED.items():
            paths.append(str(Path(folder, name)))
            write_video(Path(paths[-1]), *settings)
        rows = [measure(path, kind, readers, args.rounds) for path in paths for kind in DRAWS]
        result: dict = {"setting": f"{machine('cpu')}; {_versions()}", "rows": rows}
        print(result["setting"], "\n")
        print(table(rows, list(readers)))
        ratios = [row["ratio_cpu_ms"] for row in rows if "ratio_cpu_ms" in row]
        if ratios:
            result["geometric_mean"], result["minimum"] = statistics.geometric_mean(ratios), min(ratios)
            print(f"\nbest / ours, CPU: geometric mean {result['geometric_mean']:.2f}, minimum {result['minimum']:.2f}")
        if not args.no_loader:
            result["scaling"] = scaling(Clips(paths, 128), rounds=3)
            print(describe(result["scaling"]))
        if args.soak:
            result["soak_mb"] = soak(paths, args.soak)
            print(
                f"{args.soak} draws: {', '.join(f'{mb:.0f}' for mb in result['soak_mb'])} MB at start, middle and end"
            )
    write_json(args.json, result)


def _versions() -> str:
    found = [f"PyAV {av.__version__}"]
    for name in ("torchcodec", "decord", "cv2"):
        try:
            found.append(f"{name} {importlib.import_module(name).__version__}")
        except (ImportError, OSError, RuntimeError, AttributeError):
            continue
    return ", ".join(found)


if __name__ == "__main__":
    main()
