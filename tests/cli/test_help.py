"""The command line explains itself, in full and at once."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sifa_zoo.cli import build_parser, main
from sifa_zoo.training.recipes import recipes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HEAVY = ("torch", "torchvision", "timm", "av", "numpy", "PIL", "matplotlib", "jinja2", "huggingface_hub", "safetensors")
((COMMANDS, _),) = [(a.choices, a) for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
FLAGS = {name: {flag for a in parser._actions for flag in a.option_strings} for name, parser in COMMANDS.items()}

OF_TORCHRUN = ("--nnodes", "--rdzv-endpoint")


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["list"], ["list", "--pretrained"], ["recipes"], ["finetune", "--help-all"]]
    + [[command, "--help"] for command in COMMANDS],
    ids=" ".join,
)
def test_what_needs_no_model_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import atexit, runpy, sys; sys.argv = ['sifa-zoo', *sys.argv[1:]];"
        f"atexit.register(lambda: print(*(n for n in {HEAVY} if n in sys.modules), file=sys.stderr));"
        "runpy.run_module('sifa_zoo.cli', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_longest_help_of_a_command_has_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, command, "--help-all" if "--help-all" in FLAGS[command] else "--help")
    assert {flag for flag in FLAGS[command] if not re.search(rf"^  .*{flag}\b(?!-)", text, re.MULTILINE)} == set()


def test_the_help_of_finetune_is_a_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, "finetune", "--help")
    shown = {flag for flag in FLAGS["finetune"] if re.search(rf"^  .*{flag}\b(?!-)", text, re.MULTILINE)}
    assert {"--output", "--model", "--pretrained", "--recipe", "--resume", "--epochs", "--batch-size"} <= shown
    assert len(shown) <= 16
    assert len(text.splitlines()) <= 60
    assert text.startswith("usage: sifa-zoo finetune DATA --output RUN ")
    assert "`sifa-zoo finetune --help-all` shows every flag" in text
    examples = re.findall(r"^  sifa-zoo (.+)", text, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        assert build_parser().parse_args(shlex.split(example)).data == "videos"


def test_all_of_finetune_is_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "finetune", "--help-all")
    groups = {}
    for group in re.split(r"\n\n(?=\S)", text.split("examples:")[0]):
        title, _, flags = group.partition(":\n")
        groups[title] = len(re.findall(r"^  -", flags, re.MULTILINE))
    assert len(groups) >= 10
    assert max(groups.values()) <= 12


def test_finetune_help_names_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(printed(capsys, "finetune", "--help").split())
    assert all(f"{name}: {recipe.text}" in text.replace("- ", "-") for name, recipe in recipes().items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_flags_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for code in [*re.findall(r"`([^`\n]+)`", text), *"".join(blocks).splitlines()]:
        if called := re.search(r"(?:sifa-zoo|-m sifa_zoo\.cli) ([a-z-]+) (.*)", code):
            assert set(re.findall(r"(?<!\S)--[\w-]+", called[2])) <= FLAGS[called[1]], code
        elif code.startswith("--") and code not in OF_TORCHRUN:
            assert any(code.split()[0] in flags for flags in FLAGS.values()), code


@pytest.mark.parametrize("argv", [[], ["finetune"], ["finetune", "data", "--output", "run", "--epochs", "many"]])
def test_argparse_leaves_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2


def test_bad_model_args(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "data", "--output", "run", "--model-args", "dilation"])
    assert "expected KEY=VALUE, got 'dilation'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version").startswith("sifa-zoo ")
