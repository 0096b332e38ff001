"""The commands and snippets of the README run, on tiny videos."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_videos import write_video, write_videos

from sifa_zoo.cli import main
from sifa_zoo.ops.compiler import find_compiler

ROOT = Path(__file__).parents[1]
QUICK = "--epochs 1 --img-size 32 --num-frames 8 --frame-stride 1 --batch-size 2 --workers 0 --device cpu"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A working folder as the README supposes it."""
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "videos")
    for name in ("some_video.mp4", "holiday.mp4"):
        write_video(tmp_path / name, color=(30, 30, 200), num_frames=30)
    return tmp_path


@pytest.mark.parametrize(
    "page", ["README.md", "docs/finetune.md", "docs/recipes.md", "docs/evaluate.md", "docs/predict.md"]
)
def test_commands_and_snippets_run_in_turn(page, user_folder):
    commands = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("sifa-zoo ")]
    assert len(commands) >= 3
    for command in commands:
        arguments = shlex.split(command)[1:]
        assert main(arguments + shlex.split(QUICK if arguments[0] == "finetune" else "")) == 0, command
    for snippet in blocks(page, "python"):
        exec(compile(snippet, page, "exec"), {})
    assert (user_folder / "runs" / "mine" / "curve.png").is_file()
    if page == "README.md":
        assert (user_folder / "prediction.png").is_file()


def test_the_tutorial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, color in {"wave": (30, 30, 200), "jump": (200, 30, 30)}.items():
        for number in range(412, 420):
            write_video(Path("phone", name, f"IMG_0{number}.MOV"), color=color, seed=number)
    before = {path: path.read_bytes() for path in Path("phone").rglob("*.MOV")}
    commands = [shlex.split(line)[1:] for block in blocks("docs/tutorial.md", "sh") for line in block.splitlines()]
    assert [command[0] for command in commands] == [
        *("check", "split", "check", "resize", "check"),
        *("finetune", "eval", "predict"),
    ]
    for command in commands:
        assert main(command + shlex.split(QUICK if command[0] == "finetune" else "")) == 0, command
    assert "nothing here stops training" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path("phone").rglob("*.MOV")} == before
    assert Path("lists/train.csv").is_file()
    assert len(list(Path("small").rglob("*.mp4"))) == 16


def test_the_page_of_scale(user_folder):
    commands = [line for block in blocks("docs/scale.md", "sh") for line in block.splitlines()]
    commands = [command.replace("sifa_net_r50", "sifa_net_nano") for command in commands]
    assert len(commands) == 3
    for command in commands:
        if command.startswith("torchrun "):
            run = [sys.executable, "-m", "torch.distributed.run", *shlex.split(f"{command} {QUICK}")[1:]]
            done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("epoch 1/1: ") == 1  # the writer alone prints
        else:
            assert main(shlex.split(f"{command} {QUICK}")[1:]) == 0, command
    for run in ("mine", "two", "logged"):
        assert (user_folder / "runs" / run / "best.safetensors").is_file()


def test_the_page_of_the_operator(tmp_path, monkeypatch):
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path))
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    (block,) = blocks("docs/operator.md", "sh")
    for command in block.splitlines():
        assert main(shlex.split(command, comments=True)[1:]) == 0, command
    for snippet in blocks("docs/operator.md", "python"):
        exec(compile(snippet, "docs/operator.md", "exec"), {})


def test_the_page_of_weights():
    (snippet,) = blocks("docs/weights.md", "python")
    exec(compile(snippet, "docs/weights.md", "exec"), {})
    commands = [
        shlex.split(line)[1] for line in re.findall(r"^sifa-zoo .*", (ROOT / "docs/weights.md").read_text(), re.M)
    ]
    assert commands == ["eval", "publish", "verify"]  # which run in tests/publishing/test_publish.py


def test_the_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [
        line.split()[1] for block in blocks("README.md", "sh") for line in block.splitlines() if "make " in line
    ]
    assert commands == ["demo", "test"]
    assert set(commands) <= targets


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_the_tree_names_what_is_there():
    (tree,) = re.findall(r"^```\n(sifa_zoo/\n.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    named = paths_in_tree(tree)
    assert len(named) == len(set(named))
    there = {path for path in (ROOT / "sifa_zoo").rglob("*") if path.suffix == ".py" or path.is_dir()}
    for pattern in ("*.py", "*.json", "benchmarks/*.py", "benchmarks/gpu/*.py", "docs/*.json"):
        there.update(ROOT.glob(pattern))
    there.update(
        ROOT / name
        for name in ("sifa_zoo", "benchmarks", "benchmarks/gpu", "benchmarks/results", "docs", "tests", "tests/golden")
    )
    hidden = {path for path in there if path.name in ("__init__.py", "__pycache__")}
    assert set(named) == {path.relative_to(ROOT).as_posix() for path in there - hidden}


def paths_in_tree(tree: str) -> list[str]:
    """The paths that a tree names: an entry lies below the last line that is indented by four characters less."""
    paths, folders = [], []
    for line in tree.splitlines():
        indent, name = re.match(r"([│├└─ ]*)(\S+)", line).groups()
        folders[len(indent) // 4 :] = [name.rstrip("/")]
        paths.append("/".join(folders))
    return paths
