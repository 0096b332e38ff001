"""Imports point one way: cli -> engine, visualize -> data, registry -> weights -> models -> ops.

All may use config, files, run_files and lettering.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sifa_zoo"
DECODER = tuple(
    f"data/{name}"
    for name in (
        "container",
        "decode",
        "decoder_settings",
        "index",
        "index_building",
        "index_cache",
        "pictures",
        "random_access",
        "scaling",
    )
)
ALLOWED = {  # area: what it may import of ours, besides itself and config
    "ops": set(),
    "models": {"ops"},
    "hub": set(),
    "manifest": set(),
    "weights": {"hub", "manifest", "models"},
    "registry": {"hub", "manifest", "models", "weights"},
    **{module: set() for module in DECODER},
    "data/sampling": set(),
    "data/motion": set(),
    "data": set(),
    "visualize": {"data", "registry"},
    "engine": {"data", "hub", "manifest", "models", "recipes", "registry", "weights"},
    "config": set(),
    "files": set(),
    "lettering": set(),
    "run_files": set(),
    "recipes": set(),
}
FOR_ALL = {"config", "files", "lettering", "run_files", "__version__"}
FREE = {"cli", "__init__"}


def area(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    path = "/".join(parts)
    return path if path in ALLOWED or path in FREE else parts[0]


def imports_of_ours(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    if area(module) in DECODER:  # whose modules may import each other
        names = {name for name in names if "/".join(name.split(".")[1:3]) not in DECODER}
    return {name.split(".")[1] for name in names if name.split(".")[0] == "sifa_zoo" and "." in name}


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_direction(module):
    own = area(module)
    if own in FREE:
        return
    allowed = ALLOWED[own] | FOR_ALL | ({own} if "/" not in own else set())
    assert imports_of_ours(module) <= allowed
