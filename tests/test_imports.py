"""Imports point down, as docs/architecture.md draws them; no two files of the package share a name."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sifa_zoo"
BELOW = {  # room: the rooms right below it, of which it may use these and all below them
    "ops": (),
    "models": ("ops",),
    "video": (),
    "weights": ("models",),
    "datasets": ("video",),
    "registry": ("weights",),
    "preparing": ("datasets",),
    "runtime": ("registry", "preparing"),
    "evaluation": ("runtime",),
    "training": ("evaluation",),
    "inference": ("evaluation",),
    "publishing": ("evaluation",),
    "cli": ("publishing", "inference", "training"),
}
FOR_ALL = {"config", "files", "__version__"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def reach(room: str) -> set[str]:
    return {room} | {name for below in BELOW[room] for name in reach(below)}


def imports_of_ours(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.split(".")[0] == "sifa_zoo" and "." in name}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_direction(module):
    room = module.relative_to(PACKAGE).with_suffix("").parts[0]
    if room != "__init__":
        assert imports_of_ours(module) <= FOR_ALL | (reach(room) if room in BELOW else set())


def test_sampling_is_arithmetic():
    assert imports_of_ours(PACKAGE / "datasets" / "sampling.py") == set()


def test_every_room_is_drawn():
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} | {"registry"}
    assert there == set(BELOW)


def test_no_two_files_share_a_name():
    names = [path.name for path in MODULES if path.name != "__init__.py"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_room_has_a_dozen_files_at_most(room):
    assert len(list((PACKAGE / room).glob("[!_]*.py"))) <= 12
