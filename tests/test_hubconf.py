"""torch.hub: one entry point per architecture, and per model and data set, from a clone that is not installed."""

import inspect
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sifa_zoo
from sifa_zoo.weights.hub import UnpublishedError
from sifa_zoo.weights.manifest import read_manifest

ROOT = Path(__file__).parents[1]
HUBCONF = runpy.run_path(str(ROOT / "hubconf.py"))
ENTRY_POINTS = {name: function for name, function in HUBCONF.items() if name.startswith("sifa_")}
TAGGED = {
    f"{name.replace('transformer_base', 'transformer')}".replace(".", "_"): name
    for name, entry in read_manifest().items()
    if entry.format == "sifa_zoo"
}


def load(name, **kwargs):
    return torch.hub.load(str(ROOT), name, source="local", **kwargs)


def test_every_architecture_and_data_set_has_one():
    assert set(ENTRY_POINTS) == set(sifa_zoo.list_models()) | set(TAGGED)
    assert all(
        function.__doc__ and "pretrained" in inspect.signature(function).parameters
        for function in ENTRY_POINTS.values()
    )


@pytest.mark.parametrize("name", TAGGED)
def test_data_sets(name):
    entry = read_manifest()[TAGGED[name]]
    model = load(name, pretrained=False, device="meta")
    assert model.num_classes == entry.num_classes
    assert model.pretrained_cfg["architecture"] == TAGGED[name].partition(".")[0]
    assert load(name, pretrained=False, num_classes=3, device="meta").num_classes == 3
    if entry.loads:
        assert load(name).pretrained_cfg["label_names"] == tuple(entry.class_names)
    else:
        with pytest.raises(UnpublishedError, match=f"there are no weights '{TAGGED[name]}'"):
            load(name)


def test_architectures():
    assert load("sifa_net_nano", num_classes=3).num_classes == 3
    assert load("sifa_net_nano", pretrained=True).num_classes == 8


def test_image_models_of_timm():
    model = torch.hub.load(str(ROOT), "timm_trunk", "convnext_atto", source="local", num_classes=3, num_frames=8)
    assert model.pretrained_cfg["architecture"] == "timm:convnext_atto"
    assert model.num_classes == 3


FOREIGN = """
import sys, models, utils, torch
model = torch.hub.load({root!r}, "sifa_net_nano_motion", source="local", trust_repo=True)
assert models.mine and utils.mine
assert "site-packages" not in sys.modules["sifa_zoo"].__file__, sys.modules["sifa_zoo"].__file__
assert sys.modules["sifa_zoo"].__file__.startswith({root!r})
print(model.num_classes, {dependencies!r} and "ok")
"""


def test_beside_packages_of_the_same_names_in_a_clone_that_is_not_installed(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone], check=True)
    for path in ("sifa_zoo", "hubconf.py", "weights_manifest.json"):  # what is not committed yet
        subprocess.run(["cp", "-r", ROOT / path, clone], check=True)
    for name in ("models", "utils"):
        (tmp_path / "user" / name).mkdir(parents=True)
        (tmp_path / "user" / name / "__init__.py").write_text("mine = True\n")
    code = FOREIGN.format(root=str(clone), dependencies=HUBCONF["dependencies"])
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "user")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["8", "ok"], done.stderr


def test_dependencies_are_those_that_the_package_imports():
    code = "import sys, sifa_zoo.registry.create; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(HUBCONF["dependencies"]) <= set(done.stdout.split())
    assert {"torch", "torchvision", "timm", "safetensors", "huggingface_hub", "numpy"} <= set(HUBCONF["dependencies"])
