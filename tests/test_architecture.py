"""The package is built as docs/architecture.md draws it, and files and functions are short enough to read."""

import ast
import re
import sys
from pathlib import Path

import pytest

from sifa_zoo.video.load import load_video

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sifa_zoo"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = sorted(PACKAGE.rglob("*.py"))
FOR_ALL = {"config", "files", "__version__"}


def arrows() -> dict[str, set[str]]:
    """From each room to those right below it, as drawn."""
    drawn: dict[str, set[str]] = {}
    for uses, used in re.findall(r"^([\w, ]+) -> ([\w, ]+)$", PAGE, re.MULTILINE):
        for room in uses.split(", "):
            drawn.setdefault(room, set()).update(used.split(", "))
    return drawn


BELOW = arrows()


def reach(room: str) -> set[str]:
    """A room and all below it."""
    return {room}.union(*(reach(below) for below in BELOW.get(room, ())))


def imports_of_ours(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.split(".")[0] == "sifa_zoo" and "." in name}


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def test_all_rooms_are_drawn():
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there == reach("cli")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(module):
    room = room_of(module)
    if room != "__init__":
        assert imports_of_ours(module) <= FOR_ALL | reach(room)


@pytest.mark.parametrize("room", sorted(BELOW))
def test_every_arrow_is_used(room):
    used = set().union(*(imports_of_ours(module) for module in MODULES if room_of(module) == room))
    assert BELOW[room] <= used


def test_sampling_is_arithmetic():
    assert imports_of_ours(PACKAGE / "datasets" / "sampling.py") == set()


@pytest.mark.parametrize("room", sorted(reach("cli")))
def test_a_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert all(f"{part} " in text for part in ("In:", "Out:", "Uses")), text
    assert len(list((PACKAGE / room).glob("[!_]*.py"))) <= 12


def test_no_two_files_share_a_name():
    names = [path.name for path in MODULES if path.name != "__init__.py"]
    assert len(names) == len(set(names))


def steps(text: str) -> list[tuple[str, str]]:
    """File and function, as the numbered lines of a page name them."""
    lines = re.findall(r"^\d+\. `sifa_zoo/([\w/]+\.py)`: (.+)$", text, re.MULTILINE)
    return [(file, name) for file, text in lines for name in re.findall(r"`([\w.]+)`", text)]


@pytest.mark.parametrize(("file", "name"), steps(PAGE))
def test_the_ways_lead_through_functions_that_exist(file, name):
    tree = ast.parse((PACKAGE / file).read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(name.split(".")) <= defined


def test_load_video_takes_the_steps_that_are_drawn(videos):
    """All functions of ours that are called for a video that was read before, in the order in which they begin."""
    load_video(videos["long_gop"], [3])
    called = {}

    def note(frame, event, _):
        if event == "call" and (path := Path(frame.f_code.co_filename)).is_relative_to(PACKAGE):
            called[path.relative_to(PACKAGE).as_posix(), frame.f_code.co_name] = None

    sys.setprofile(note)
    load_video(videos["long_gop"], [3, 30], short_side=32)
    sys.setprofile(None)
    (way,) = re.findall(r"^### .*`load_video.*?(?=^###)", PAGE, re.MULTILINE | re.DOTALL)
    drawn = [(file, "__init__" if name == "Canvas" else name.rpartition(".")[2]) for file, name in steps(way)]
    assert list(called) == drawn
    assert len(drawn) <= 15


FILES = [path for folder in ("sifa_zoo", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
