"""What `import sifa_zoo` offers, and what it leaves for later."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import sifa_zoo

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "av", "numpy", "PIL", "matplotlib", "jinja2", "huggingface_hub", "safetensors")


def loaded(code: str, *names: str) -> list[str]:
    """Which of these modules a fresh process has imported after this code."""
    code = f"import sys\n{code}\nprint(*(name for name in {names} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_import_is_cheap():
    code = "import sifa_zoo; sifa_zoo.list_models(), sifa_zoo.list_pretrained(), sifa_zoo.is_model('x'), dir(sifa_zoo)"
    assert loaded(code, *HEAVY, "sifa_zoo.models", "sifa_zoo.video", "sifa_zoo.runtime") == []


def test_building_a_model_needs_no_decoder():
    code = "import sifa_zoo; sifa_zoo.create_model('sifa_net_nano', device='meta')"
    assert loaded(code, "av", "matplotlib", "sifa_zoo.video", "sifa_zoo.runtime", "torch") == ["torch"]


@pytest.mark.parametrize("name", sifa_zoo.__all__)
def test_every_name_is_there_at_its_first_use(name):
    assert name in dir(sifa_zoo)
    assert loaded(f"import sifa_zoo; assert sifa_zoo.{name}; from sifa_zoo import {name}") == []


def test_all_names_at_once():
    namespace: dict[str, object] = {}
    exec("from sifa_zoo import *", namespace)
    assert set(sifa_zoo.__all__) <= namespace.keys()


@pytest.mark.parametrize(
    ("before", "place"),
    [
        ("pass", "models.sifa_net.SIFANet"),
        ("pass", "files.write_files"),
        ("pass", "registry.create.create_model"),
        ("import torch", "ops.functional.inter_frame_attention"),
        ("import timm", "models.convert.inflate"),
        ("import timm", "weights.finding.find_weights"),
        ("sifa_zoo.list_models()", "weights.hub.OfflineError"),
    ],
)
def test_rooms_are_attributes_with_what_a_model_needs(before, place):
    assert loaded(f"import sifa_zoo; {before}; assert sifa_zoo.{place}", "sifa_zoo.video") == []


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="module 'sifa_zoo' has no attribute 'create_modell'"):
        _ = sifa_zoo.create_modell
    with pytest.raises(ImportError, match="cannot import name 'create_modell'"):
        exec("from sifa_zoo import create_modell")


@pytest.mark.parametrize("name", ["VideoError", "WeightsError", "create_model", "load_video", "predict"])
def test_classes_and_functions_are_pickled_by_name(name):
    assert pickle.loads(pickle.dumps(getattr(sifa_zoo, name))) is getattr(sifa_zoo, name)
