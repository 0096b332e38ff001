"""The names of models."""

import pytest

import sifa_zoo

NAMES = [f"sifa_net_{size}" for size in ("nano", "r101", "r50")] + [
    f"sifa_transformer_{size}" for size in ("base", "large", "nano", "small", "tiny")
]


def test_names():
    assert sifa_zoo.list_models() == NAMES
    assert sifa_zoo.list_models("*nano") == ["sifa_net_nano", "sifa_transformer_nano"]
    assert all(sifa_zoo.is_model(name) for name in NAMES)
    assert not sifa_zoo.is_model("resnet50")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("sifa_net_r5", "did you mean sifa_net_r50"),
        ("sifa_transformer_bas", "did you mean sifa_transformer_base"),
        ("zzz", "sifa_net_nano, .*sifa_transformer_tiny"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(ValueError, match=match):
        sifa_zoo.create_model(name)


def test_names_of_weights_are_names_of_models():
    assert all(sifa_zoo.is_model(name) for name in sifa_zoo.list_pretrained())
    for name in ("sifa_net_nano.nonsense", "sifa_transformer_base.k400", "sifa_net_nano.", "resnet50.a1_in1k", ""):
        assert not sifa_zoo.is_model(name), name
