"""timm's model contract, by name over every registered model."""

import copy
import itertools

import pytest
import timm
import torch
from nano_models import ALL, NANO, SIZE, build, clip
from timm.models._manipulate import group_parameters
from torch.testing import assert_close

import sifa_zoo
from sifa_zoo.models.sifa import OFFSETS, SIFA

VARIANTS = [(name, {}) for name in NANO] + [
    ("sifa_net_nano", {"dual_head": True}),
    ("sifa_net_nano", {"global_context": False}),
    ("sifa_net_nano", {"kernel_size": (1, 3, 5, 3), "dilation": 2}),
    ("sifa_transformer_nano", {"patch_norm": False, "kernel_size": 5}),
    ("sifa_transformer_nano", {"offsets": "zero"}),
    ("sifa_net_nano", {"offsets": "none"}),
]


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def model(request):
    name, kwargs = request.param
    return build(name, **kwargs).eval()


@pytest.mark.parametrize("name", ALL)
def test_every_model_trains_and_loads(name):
    model = build(name)
    out = model(clip())
    assert out.shape == (1, 5)
    out.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    saved = {n: t.clone() for n, t in model.state_dict().items()}
    with torch.inference_mode():
        expected = model.eval()(clip())
        for parameter in model.parameters():
            parameter.zero_()
        assert not torch.equal(model(clip()), expected)
        model.load_state_dict(saved)
        assert torch.equal(model(clip()), expected)


@pytest.mark.parametrize("name", ALL)
def test_every_model_takes_any_number_of_frames_and_another_head(name):
    model = build(name).eval()
    with torch.inference_mode():
        for batch, num_frames in itertools.product((1, 2), (4, 8, 16)):
            x = clip(batch, num_frames)
            features, maps = model.forward_intermediates(x)
            assert features.shape == (batch, model.num_features, num_frames // 4, 2, 2)
            assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
            out = model.forward_head(features)
            assert out.shape == (batch, 5)
            assert_close(out[:1], model(x[:1]), atol=1e-5, rtol=1e-4)
        model.reset_classifier(0)
        assert model(clip()).shape == (1, model.head_hidden_size)
        model.reset_classifier(42)
        assert model(clip()).shape == (1, 42)


@pytest.mark.parametrize("name", ALL)
def test_every_model_builds_on_meta_and_names_its_ends(name):
    model = sifa_zoo.create_model(name, device="meta", dtype=torch.bfloat16)
    names = model.state_dict().keys()
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in model.parameters())
    cfg = model.default_cfg
    assert f"{cfg['first_conv']}.weight" in names
    assert f"{cfg['classifier']}.weight" in names
    assert timm.is_model(name)
    if "nano" in name:
        assert sum(p.numel() for p in model.parameters()) < 1.5e6


def test_head(model):
    x = clip(2)
    features = model.forward_features(x)
    assert model(x).isfinite().all()
    assert_close(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)

    model = copy.deepcopy(model)
    model.reset_classifier(42)
    assert model(x).shape == (2, 42)
    assert model.num_classes == 42
    model.reset_classifier(0)
    assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    assert_close(model(x), features)
    model.reset_classifier(3, "max")
    assert model(x).shape == (2, 3)


def test_new_head_keeps_dtype_and_mode(model):
    model = copy.deepcopy(model).to(torch.bfloat16)
    model.reset_classifier(3)
    classifiers = model.get_classifier()
    for fc in classifiers if isinstance(classifiers, tuple) else (classifiers,):
        assert fc.weight.dtype == torch.bfloat16
        assert not fc.training


def test_intermediates_and_feature_info(model):
    x = clip(2)
    final, maps = model.forward_intermediates(x)
    assert_close(final, model.forward_features(x))
    assert len(maps) == len(model.feature_info)
    for map_, info in zip(maps, model.feature_info, strict=True):
        size = SIZE // info["reduction"]
        assert map_.shape == (2, info["num_chs"], 8 // info["temporal_reduction"], size, size)
        model.get_submodule(info["module"])
    assert_close(model.forward_intermediates(x, indices=[1, 2], intermediates_only=True), maps[1:3])
    with pytest.raises(ValueError, match="NCTHW"):
        model.forward_intermediates(x, output_fmt="NLC")


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS, ids=str)
def test_features_only_leaves_nothing_unused(name, kwargs):
    whole = build(name, **kwargs).eval()
    features = build(name, features_only=True, out_indices=(1, 2), **kwargs).eval()
    features.model.load_state_dict(whole.state_dict(), strict=False)
    maps = features(clip(2))
    assert_close(maps, whole.forward_intermediates(clip(2), [1, 2], intermediates_only=True))
    assert features.feature_info.get("temporal_reduction") == [4, 4]
    assert [map_.shape[1] for map_ in maps] == features.feature_info.channels()
    sum(map_.sum() for map_ in features.train()(clip(2))).backward()
    assert [n for n, p in features.named_parameters() if p.grad is None] == []


def test_gradient_checkpointing_changes_nothing(model):
    model = copy.deepcopy(model)  # eval mode: drop path and batch statistics are still
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(clip(2)).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize("coarse", [False, True])
def test_group_matcher_takes_every_parameter(model, coarse):
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    assert sum(len(names) for names in groups.values()) == len(list(model.parameters()))
    assert len(groups) > 3
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


def test_dual_heads():
    model = build("sifa_net_nano", dual_head=True)
    x = clip(2)
    model.eval()
    features = model.forward_features(x)
    assert features[0].shape == (2, model.num_features, 2, 2, 2)
    assert features[1].shape == (2, model.num_features, 1, 4, 4)
    main, dual = model.head(features[0]), model.head_dual(features[1])
    assert_close(model(x).softmax(1), (main.softmax(1) + dual.softmax(1)) / 2)
    model.train()
    assert model(x).shape == (2, 5)
    model.set_dual_training(True)
    assert [logits.shape for logits in model(x)] == [(2, 5), (2, 5)]
    with pytest.raises(ValueError, match="at least 8"):
        model(clip(num_frames=4))
    with pytest.raises(ValueError, match="dual_head=True"):
        build("sifa_net_nano").set_dual_training(True)


@pytest.mark.parametrize("size", [(64, 96), (224, 160), (160, 160), (448, 448)])
def test_set_input_size_equals_the_constructor(size):
    built = build("sifa_transformer_nano", img_size=size)
    resized = build("sifa_transformer_nano", img_size=112)
    resized.set_input_size(img_size=size, num_frames=8)
    assert resized.num_frames == 8
    assert {n: p.shape for n, p in resized.state_dict().items()} == {n: p.shape for n, p in built.state_dict().items()}
    for a, b in zip(built.modules(), resized.modules(), strict=True):
        assert getattr(a, "window_size", None) == getattr(b, "window_size", None)
        assert getattr(a, "shift_size", None) == getattr(b, "shift_size", None)
    resized.load_state_dict(built.state_dict())
    x = torch.randn(1, 3, 4, *size)
    with torch.inference_mode():
        assert_close(resized.eval()(x), built.eval()(x))


def test_set_input_size_to_the_same_changes_nothing():
    model = build("sifa_transformer_nano")
    before = dict(model.named_parameters())
    model.set_input_size(img_size=SIZE)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_the_role_of_a_block_does_not_follow_the_image_size():
    for size in (64, 224, 448):
        model = sifa_zoo.create_model("sifa_transformer_tiny", img_size=size, device="meta")
        roles = [type(block.temporal).__name__ for stage in model.layers for block in stage.blocks]
        assert roles == ["SIFAMixer", "TemporalConv"] * 5 + ["SIFAMixer", "SIFAMixer"]


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 8, 3, SIZE, SIZE), r"clip.transpose\(1, 2\)"),
        ((3, 8, SIZE, SIZE), r"clips \(B, 3, T, H, W\)"),
        ((1, 1, 8, SIZE, SIZE), r"clips \(B, 3, T, H, W\)"),
        ((1, 3, 6, SIZE, SIZE), "num_frames must be a multiple of 4"),
        ((1, 3, SIZE, SIZE, 16), "must be at least 32|set_input_size"),
    ],
)
def test_wrong_clips_are_refused(name, shape, match):
    with pytest.raises(ValueError, match=match):
        build(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"num_frames": 6}, ValueError, "multiple of 4"),
        ({"num_frames": 0}, ValueError, "multiple of 4"),
        ({"img_size": 16}, ValueError, "at least 32"),
        ({"num_classes": -1}, ValueError, "num_classes must not be negative"),
        ({"in_chans": 0}, ValueError, "in_chans must be at least 1"),
        ({"global_pool": "median"}, ValueError, "global_pool must be one of"),
        ({"global_pool": ""}, ValueError, "needs pooling"),
        ({"kernel_size": (3, 3)}, ValueError, "four of them"),
        ({"dilation": 0}, ValueError, "dilation must be ints of at least 1"),
        ({"offsets": "random"}, ValueError, "offsets must be one of"),
        ({"drop_rate": 1.5}, ValueError, "drop_rate must be in"),
        ({"drop_path_rate": 1.5}, ValueError, "drop_path_rate must be in"),
        ({"img_size": "64"}, ValueError, "an int or a pair of ints"),
        ({"features_only": True, "out_indices": (9,)}, ValueError, "indices must be within"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_wrong_arguments_are_refused(name, kwargs, error, match):
    with pytest.raises(error, match=match):
        build(name, **kwargs)


def test_a_size_that_the_trunk_refuses():
    with pytest.raises(ValueError, match="multiple of 4"):
        build("sifa_transformer_nano", img_size=225)
    model = build("sifa_transformer_nano")
    with pytest.raises(ValueError, match="multiple of 4"):
        model.set_input_size(img_size=(64, 66))
    assert model.img_size == (SIZE, SIZE)


@pytest.mark.parametrize("name", NANO)
def test_frames_of_one_channel(name):
    assert build(name, in_chans=1)(torch.randn(2, 1, 4, SIZE, SIZE)).shape == (2, 5)


def test_intermediates_of_two_branches_come_from_one_pass():
    model = build("sifa_net_nano", dual_head=True).train()
    model.forward_intermediates(clip(2))
    assert model.bn1.num_batches_tracked == 1
    early, maps = model.eval().forward_intermediates(clip(2), [1], stop_early=True)
    assert torch.equal(early, maps[0])


@pytest.mark.parametrize("name", NANO)
def test_models_for_ablations(name):
    """Zero offsets are what learned ones start with; without SIFA no parameter of it is left."""
    learned, zero, none = (build(name, offsets=offsets) for offsets in OFFSETS)
    zero.load_state_dict({n: tensor for n, tensor in learned.state_dict().items() if "conv_offset" not in n})
    assert torch.equal(zero.eval()(clip()), learned.eval()(clip()))
    assert not any(isinstance(module, SIFA) for module in none.modules())
    assert len(none.state_dict()) < len(zero.state_dict()) + (name == "sifa_net_nano")
    none(clip()).sum().backward()
    assert all(parameter.grad is not None for parameter in none.parameters())


@pytest.mark.parametrize("name", NANO)
def test_pruning_twice(name):
    model = build(name)
    model.prune_intermediate_layers([2])
    model.prune_intermediate_layers([1])
    assert len(model.forward_intermediates(clip(), intermediates_only=True)) == 2
