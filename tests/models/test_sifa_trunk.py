"""SIFA in trunks of timm: image models that no line of this package knows by name."""

import copy
import pickle

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.testing import assert_close

from sifa_zoo.models.clip_model import stack_kernel
from sifa_zoo.models.image_trunk import TrunkError, last_module
from sifa_zoo.models.sifa_trunk import SIFATrunk

# Of every kind of trunk a small one, at the smallest size that it takes.
TRUNKS = {
    **{"botnet26t_256": 256, "gernet_s": 64, "convit_tiny": 224, "convmixer_768_32": 70, "convnext_atto": 64},
    **{"convnextv2_atto": 64, "cpubone_nano": 64, "csatv2": 256, "cs3darknet_focus_s": 64, "davit_tiny": 64},
    **{"deit_tiny_patch16_224": 224, "densenet121": 64, "dla34": 64, "edgenext_xx_small": 64, "hardcorenas_a": 64},
    **{"efficientformer_l1": 224, "efficientformerv2_s0": 224, "efficientnet_b0": 64, "efficientvit_b0": 64},
    **{"efficientvit_m0": 224, "eva02_tiny_patch14_224": 224, "fasternet_t0": 64, "fastvit_t8": 64, "ghostnet_050": 64},
    **{"hieradet_small": 64, "inception_next_atto": 64, "inception_v3": 75, "iformer_t": 64, "lcnet_035": 64},
    **{"levit_128s": 224, "lowformer_b0": 64, "coatnet_nano_rw_224": 224, "caformer_s18": 64, "gmlp_ti16_224": 224},
    **{"mixer_s32_224": 224, "mobilenetv3_small_050": 64, "mobilenetv4_conv_small_035": 64, "mobilevit_xxs": 64},
    **{"nf_regnet_b0": 64, "pvt_v2_b0": 64, "regnetx_002": 64, "repghostnet_050": 64, "repvit_m0_9": 64},
    **{"res2net50_14w_8s": 64, "resnet18": 64, "resnetv2_18": 64, "rexnetr_100": 64, "seresnext26t_32x4d": 64},
    **{"shvit_s1": 64, "skresnet18": 64, "starnet_s050": 64, "swiftformer_xs": 64},
    **{"swin_tiny_patch4_window7_224": 224, "tiny_vit_5m_224": 224, "tresnet_m": 64},
    **{"visformer_tiny": 224, "vit_tiny_patch16_224": 224, "vit_small_patch16_dinov3": 64},
    **{"ese_vovnet19b_slim": 64, "xception41": 75, "xcit_nano_12_p16_224": 224},
}
BIG = (
    "sequencer2d_s",
    "vgg11_bn",
    "beit_large_patch16_224",
    "convnext_xxlarge",
    "eva_giant_patch14_224",
    "mobilenetv5_300m",
    "nasnetalarge",
)
REFUSED = {  # trunk -> why
    "hiera_tiny_224": "ordered by windows",
    "coat_lite_tiny": "is called 0 times",
    "crossvit_tiny_240": "returns a list",
    "pit_ti_224": "returns a tuple",
    "tnt_s_patch16_224": "returns a tuple",
    "hrnet_w18_small": "returns a list",
    "selecsls42": "returns a list",
    "mvitv2_tiny": "has no module 'block.1'",
    "efficientvim_m1": "returns a tuple",
}


def build(name, *, num_frames=8, size=None, **kwargs):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    trunk = timm.create_model(name, num_classes=5, **kwargs)
    for parameter in trunk.get_classifier().parameters() if isinstance(trunk.get_classifier(), nn.Module) else ():
        nn.init.normal_(parameter, std=0.1)  # some start at zero, and then nothing reaches the trunk
    return SIFATrunk(trunk, num_frames=num_frames, img_size=size or TRUNKS[name], in_chans=kwargs.get("in_chans", 3))


def clip_for(model, batch=1, num_frames=None):
    torch.manual_seed(1)
    return torch.randn(batch, model.in_chans, num_frames or model.num_frames, *model.img_size)


def open_gates(model):
    for added in model.sifa.values():
        nn.init.constant_(added.gate, 0.1)
    return model


def same_rows(tokens, maps):
    """Whether tokens `(B*T, H, W, C)` are the maps `(B, C, T, H, W)`."""
    return torch.equal(tokens, maps.permute(0, 2, 3, 4, 1).flatten(0, 1))


@pytest.mark.parametrize("name", TRUNKS)
def test_trunk(name):
    model = build(name).eval()
    image = clip_for(model)[:, :, :1]
    trunk = timm.create_model(name, num_classes=5, **({"img_size": 64} if "dinov3" in name else {})).eval()
    trunk.load_state_dict({n: planar(tensor, trunk.state_dict()[n]) for n, tensor in model.trunk.state_dict().items()})
    with torch.inference_mode():
        # A clip of equal frames has the logits of the image model, however long it is.
        expected = trunk(image[:, :, 0])
        for num_frames in (4, 16, 8):
            model.set_input_size(num_frames=num_frames)
            assert_close(model(image.expand(-1, -1, num_frames, -1, -1)), expected, atol=1e-5, rtol=1e-5)
        check_features(open_gates(model), name)
    check_gradients(model)
    again = build(name)
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(again.eval()(clip_for(model)), model.eval()(clip_for(model)))


def planar(tensor, like):
    """A kernel for four frames as what it does to four equal ones."""
    return tensor if tensor.shape == like.shape else tensor.unflatten(1, (-1, 4)).sum(2)


def check_features(model, name):
    """Maps have the channels and reductions that timm states, and tokens lie row by row."""
    seen = {}
    for key, added in model.sifa.items():
        added.register_forward_hook(lambda module, args, out, key=key: seen.update({key: out}))
    x = clip_for(model)
    last, maps = model.forward_intermediates(x)
    assert torch.equal(last, model.forward_features(x))
    for info, features in zip(model.feature_info, maps, strict=True):
        assert features.shape[:3] == (1, info["num_chs"], 2)
        side = model.img_size[0] / info["reduction"]
        assert side - 1 <= features.shape[3] <= side + 1 or name in (
            "inception_v3",
            "tresnet_m",
        )  # of which timm states another
        key = info["module"].replace(".", "_")
        if key in model.sifa and model.sifa[key].layout.tokens:
            layout = model.sifa[key].layout
            assert same_rows(seen[key][:, layout.prefix :].unflatten(1, layout.grid), features)
    assert 1 <= len(seen) == len(model.sifa) <= 4


def check_gradients(model):
    model.train()
    model(clip_for(model, 2)).square().sum().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []
    weights = {n: p for n, p in model.sifa.named_parameters() if n.endswith(("conv_offset.weight", "gate"))}
    assert [n for n, parameter in weights.items() if not parameter.grad.any()] == []


@pytest.mark.parametrize("name", BIG)
def test_big_trunks_on_the_meta_device(name):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    with torch.device("meta"):
        model = SIFATrunk(timm.create_model(name, num_classes=5))
    assert 1 <= len(model.sifa) <= 4
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(("name", "why"), REFUSED.items())
def test_trunks_that_cannot_work_say_why(name, why):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    with torch.device("meta"), pytest.raises(TrunkError, match=why):
        SIFATrunk(timm.create_model(name, num_classes=5))


def test_frames_see_the_next_one_behind_an_open_gate():
    model = open_gates(build("vit_tiny_patch16_224")).eval()
    x = clip_for(model)
    moved = x.clone()
    moved[:, :, 6:] += 1  # in the second of two time steps
    with torch.inference_mode():
        before, after = (
            model.step_features(model.forward_features(x)),
            model.step_features(model.forward_features(moved)),
        )
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_checkpointing_and_hooks_on_blocks(name):
    model = open_gates(build(name)).eval()
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        loss = model(clip_for(model)).square().sum()
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert_close(*results)
    calls = []
    last_module(model.trunk, model.feature_info[-2]["module"]).register_forward_hook(lambda *_: calls.append(1))
    model(clip_for(model))
    assert calls == [1]


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_copies_follow_their_own_sifa(name):
    model = open_gates(build(name)).eval()
    expected = model(clip_for(model)).detach()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for added in model.sifa.values():
        nn.init.zeros_(added.gate)
    assert (model(clip_for(model)) - expected).abs().max() > 1e-6
    for copied in copies:
        assert_close(copied(clip_for(model)), expected)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_groups_are_those_of_timm(name):
    model = build(name)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups.keys() == dict(model.named_parameters()).keys()
    assert len(set(groups.values())) > 5
    for key, followed in model._behind.items():
        inside = [number for n, number in groups.items() if n.startswith(f"trunk.{followed}.")]
        assert groups[f"sifa.{key}.gate"] == max(inside)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_maps_stay_as_narrow_under_autocast(name):
    model = open_gates(build(name)).eval()
    dtypes = []
    for added in model.sifa.values():
        added.register_forward_hook(lambda module, args, out: dtypes.append((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model(clip_for(model))
    assert [before for before, _ in dtypes] == [after for _, after in dtypes]
    assert (narrow.float() - model(clip_for(model))).norm() < 0.1 * model(clip_for(model)).norm()


def test_what_timm_lacks_for_a_trunk_is_said():
    with pytest.raises(TrunkError, match="no groups of layers for CSATv2: leave out layer decay"):
        build("csatv2").group_matcher()
    with pytest.raises(TrunkError, match="cannot checkpoint DLA"):
        build("dla34").set_grad_checkpointing()


def test_input_size():
    model = build("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"set to clips of 8 frames, got 4; set_input_size\(num_frames=4\)"):
        model(clip_for(model, num_frames=4))
    with pytest.raises(ValueError, match=r"set to frames of \(224, 224\), got \(64, 96\)"):
        model(torch.zeros(1, 3, 8, 64, 96))
    model.set_input_size(img_size=(64, 96), num_frames=12)
    assert model(clip_for(model)).shape == (1, 5)
    assert {added.layout.grid for added in model.sifa.values()} == {(4, 6)}
    built = build("levit_128s")
    for arguments, match in (((256, 4), "has to be built for"), ((256, 5), "multiple of 4")):
        with pytest.raises(ValueError, match=match):
            built.set_input_size(*arguments)
        assert (built.img_size, built.num_frames) == ((224, 224), 8)
    assert build("resnet18")(torch.randn(1, 3, 8, 96, 64)).shape == (1, 5)  # a trunk that takes any size


def test_heads():
    model = build("mobilenetv3_small_050").eval()
    features = model.forward_features(clip_for(model))
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    model.reset_classifier(3)
    assert model.forward_head(features).shape == (1, model.num_classes) == (1, 3)
    model.reset_classifier(0)
    assert model(clip_for(model)).shape == (1, model.head_hidden_size)
    model = build("resnet18")
    model.reset_classifier(0, "")
    assert model(clip_for(model)).shape == (1, 2, model.num_features, 2, 2)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0"])
def test_pruning(name):
    model = open_gates(build(name)).eval()
    expected = model.forward_intermediates(clip_for(model), [2], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([2]) == [2]
    (features,) = model.forward_intermediates(clip_for(model), [2], intermediates_only=True)
    assert_close(features, expected)
    features.sum().backward()
    assert all(parameter.grad is not None for n, parameter in model.named_parameters() if n.startswith("sifa."))


def test_channels_and_stages_can_be_chosen():
    model = build("resnet18", in_chans=1)
    assert model.in_chans == 1
    assert model(clip_for(model)).shape == (1, 5)
    trunk = timm.create_model("resnet18")
    assert list(SIFATrunk(trunk, img_size=64, sifa_stages=(-1,), kernel_size=1).sifa) == ["layer4"]
    with pytest.raises(ValueError, match="within 5 stages"):
        SIFATrunk(timm.create_model("resnet18"), sifa_stages=(7,))
    without = SIFATrunk(timm.create_model("resnet18"), img_size=64, offsets="none")
    assert not without.sifa
    zero = SIFATrunk(timm.create_model("resnet18"), img_size=64, offsets="zero")
    assert not any("conv_offset" in n for n, _ in zero.named_parameters())


def test_weights_are_those_of_the_image_model():
    trunk = timm.create_model("resnet18", num_classes=5)
    before = {n: tensor.clone() for n, tensor in trunk.state_dict().items()}
    after = SIFATrunk(trunk, img_size=64).state_dict()
    assert {n.partition(".")[2] for n in after if n.startswith("trunk.")} == before.keys()
    assert torch.equal(after.pop("trunk.conv1.weight"), stack_kernel(before.pop("conv1.weight")))
    assert all(torch.equal(after[f"trunk.{n}"], tensor) for n, tensor in before.items())
