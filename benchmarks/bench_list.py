"""A long list of videos: the time to open it, and the memory that it costs each process of a loader.

    python benchmarks/bench_list.py [--rows N] [--json FILE]

Empty files, 2,500 in a folder, are written into a temporary folder, and a list and a CSV file with a header that name
them. Opening includes the check that each file exists; it is timed in a new process, three times, and the median is
printed, of the clock and of the processor's time, which other programs on the machine do not lengthen.
Memory is that of a process which holds the list, and of two loader workers under fork and under spawn, from
/proc/self/smaps_rollup: USS is what would be free again without the process, PSS counts shared pages by their share.
What a list costs is the difference from the same processes with a list of ten rows.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import benchmark_parser, machine, write_json
from torch.utils.data import DataLoader, Dataset

from sifa_zoo.datasets.reading import read_videos
from sifa_zoo.datasets.videos import VideoList

PER_FOLDER = 2_500
WORKERS = 2


def write_files(root: Path, rows: int) -> list[str]:
    """Empty files `root/class_NNN/video_NNNNNNN.mp4`; returns their paths below `root`."""
    if os.statvfs(root).f_favail < 2 * rows:
        raise SystemExit(f"too few inodes are free under {root} for {rows} files; set TMPDIR to another disk")
    names = []
    for start in range(0, rows, PER_FOLDER):
        folder = f"class_{start // PER_FOLDER:03d}"
        (root / folder).mkdir()
        for number in range(start, min(start + PER_FOLDER, rows)):
            name = f"{folder}/video_{number:07d}.mp4"
            os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY))
            names.append(name)
    return names


def write_lists(root: Path, names: list[str]) -> tuple[Path, Path]:
    """A list of `path label` lines, and a CSV file with a header."""
    text, table = root / f"rows_{len(names)}.txt", root / f"rows_{len(names)}.csv"
    text.write_text("".join(f"{name} {name.partition('/')[0]}\n" for name in names))
    table.write_text("path,label\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in names))
    return text, table


def memory() -> dict[str, float]:
    """USS and PSS of this process in MB."""
    gc.collect()
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    kilobytes = {name.rstrip(":"): int(value) for name, value, *_ in lines}
    return {"uss": (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1e3, "pss": kilobytes["Pss"] / 1e3}


class Probe(Dataset):
    """Reads videos of the list, as a dataset of clips would, and tells the memory of its process after that."""

    def __init__(self, videos: VideoList) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return 2 * WORKERS

    def __getitem__(self, index: int) -> dict[str, float]:
        step = max(1, len(self.videos) // 100_000)
        assert all(self.videos.path(i).name and self.videos.labels[i] >= 0 for i in range(0, len(self.videos), step))
        return memory()


def first(items: list[Any]) -> Any:
    return items[0]


def opening(file: Path) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    start, start_cpu = time.perf_counter(), time.process_time()
    read_videos(file)
    return time.perf_counter() - start, time.process_time() - start_cpu


def holding(file: Path) -> dict[str, dict[str, float]]:
    """Memory of this process with the list, and the most of its workers."""
    videos = read_videos(file)
    found = {"parent": memory()}
    for method in ("fork", "spawn"):
        loader = DataLoader(
            Probe(videos), batch_size=1, num_workers=WORKERS, collate_fn=first, multiprocessing_context=method
        )
        told = list(loader)
        found[method] = {kind: max(one[kind] for one in told) for kind in told[0]}
    return found


def in_new_process(call: Callable[[Path], Any], file: Path) -> Any:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, call, file))  # no pool: its processes have no children
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def _send(sender: Any, call: Callable[[Path], Any], file: Path) -> None:
    sender.send(call(file))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: 1,000,000")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        names = write_files(Path(folder), args.rows)
        files = write_lists(Path(folder), names)
        few, _ = write_lists(Path(folder), names[:10])
        seconds, cpu_seconds = {}, {}
        for file in files:
            kind, runs = file.suffix[1:], [in_new_process(opening, file) for _ in range(3)]
            seconds[kind], cpu_seconds[kind] = (statistics.median(times) for times in zip(*runs, strict=True))
            print(f"{kind}: {args.rows} rows open in {seconds[kind]:.2f} s, {cpu_seconds[kind]:.2f} s of CPU time")
        long, short = in_new_process(holding, files[0]), in_new_process(holding, few)
    costs = {who: {kind: long[who][kind] - short[who][kind] for kind in long[who]} for who in long}
    for who, cost in costs.items():
        print(f"{who:7} USS {long[who]['uss']:.0f} MB, of which the list {cost['uss']:.0f} MB (PSS {cost['pss']:.0f})")
    figures = {"machine": machine("cpu"), "load_average": os.getloadavg()[0], "rows": args.rows}
    figures |= {"seconds": seconds, "cpu_seconds": cpu_seconds, "list_megabytes": costs}
    write_json(args.json, figures)


if __name__ == "__main__":
    main()
