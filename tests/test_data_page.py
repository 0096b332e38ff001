"""The commands and snippets of docs/data.md run, on tiny data sets laid out as the page shows them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import webdataset
from PIL import Image
from tiny_videos import write_video

from sifa_zoo.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
QUICK = "--epochs 1 --img-size 32 --num-frames 8 --frame-stride 1 --batch-size 2 --workers 0 --device cpu"
CLASSES = ("wave", "jump")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def page_folder(tmp_path, monkeypatch):
    """All data sets of the page, two videos in each split."""
    monkeypatch.chdir(tmp_path)
    made = [write_video(tmp_path / f"{i}.mp4", color=(200 * (i % 2), 30, 50 * i), num_frames=8) for i in range(4)]
    rows = [(video, CLASSES[i % 2], ("train", "val")[i // 2]) for i, video in enumerate(made)]
    for video, name, split in rows:
        places = (
            *(f"videos/{split}/{name}/{video.name}", f"lists/clips/{video.name}", f"table/clips/{video.name}"),
            *(f"kinetics/{split}/{name}/id{video.stem}_000010_000020.mp4", f"ssv2/videos/{video.stem}.webm"),
            *(f"ucf101/UCF-101/{name}/v_{video.stem}.avi", f"hmdb51/{name}/{video.name}", f"numbered/{video.name}"),
            *(f"renamed/{('2', 'jumping')[CLASSES.index(name)]}/{video.name}",),
        )
        for place in places:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, place)
        for frame in range(1, 9):
            path = Path(f"ssv1/20bn-something-something-v1/{video.stem}/{frame:05d}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 40), (200, 30, 10 * frame)).save(path)
    for split, long, use in (("train", "train", "1"), ("val", "validation", "2")):
        part = [(video, name) for video, name, of in rows if of == split]
        write(Path(f"lists/{split}.txt"), "".join(f"clips/{video.name} {name}\n" for video, name in part))
        table = "".join(f'"clips/{video.name}",{name}\n' for video, name in part)
        write(Path(f"table/{split}.csv"), f"path,label\n{table}")
        lines = "".join(f"{name},id{video.stem},10,20,{split}\n" for video, name in part)
        write(
            Path(f"kinetics/{split}.csv"), f"label,youtube_id,time_start,time_end,split\n{lines}wave,gone,1,2,{split}\n"
        )
        v1 = "".join(f"{video.stem};{name}\n" for video, name in part)
        write(Path(f"ssv1/something-something-v1-{long}.csv"), v1)
        v2 = ", ".join(f'{{"id": "{video.stem}", "template": "[{name}]"}}' for video, name in part)
        write(Path(f"ssv2/something-something-v2-{long}.json"), f"[{v2}]")
        ucf = "".join(f"{name}/v_{video.stem}.avi {1 + CLASSES.index(name)}\n" for video, name in part)
        write(Path(f"ucf101/ucfTrainTestlist/{'trainlist' if use == '1' else 'testlist'}01.txt"), ucf)
        write(Path(f"numbered/{split}.txt"), "".join(f"{v.name} {sorted(CLASSES).index(n)}\n" for v, n in part))
    write(Path("ucf101/ucfTrainTestlist/classInd.txt"), "1 wave\n2 jump\n")
    for wanted in CLASSES:
        uses = [f"{video.name} {1 if split == 'train' else 2}\n" for video, name, split in rows if name == wanted]
        write(Path(f"hmdb51/testTrainMulti_7030_splits/{wanted}_test_split1.txt"), "".join(uses))
    write(Path("map.csv"), "2,wave\njumping,jump\n")
    write(Path("shards/classes.txt"), "wave\njump\n")
    for split in ("train", "val"):
        Path(f"shards/{split}").mkdir()
        with webdataset.TarWriter(f"shards/{split}/000000.tar") as writer:
            for video, name, _ in rows:
                writer.write({"__key__": video.stem, "mp4": video.read_bytes(), "cls": name})
    return tmp_path


def test_commands_and_snippets_run_in_turn(page_folder):
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert {command[0] for command in commands} == {"finetune", "eval"}
    for command in commands:
        quick = QUICK if command[0] == "finetune" else "--workers 0 --device cpu"
        assert main([*command, *shlex.split(quick)]) == 0, command
    for snippet in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(snippet, "docs/data.md", "exec"), {})
