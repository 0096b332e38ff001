"""Entry points of torch.hub: `torch.hub.load("OWNER/sifa_zoo", "sifa_net_r50")`.

One function per architecture, and `timm_trunk` for any image model of timm, whose `pretrained` is False by default; and
one per model and data set. The latter loads its weights by default, and is an error where nobody has released any; with
`pretrained=False` it builds the model for as many classes as the data set has. Arguments are those of
`sifa_zoo.create_model`. Imports stand inside the functions, because torch.hub reads this file before it checks
`dependencies`.
"""

dependencies = ["torch", "torchvision", "timm", "safetensors", "huggingface_hub", "filelock", "numpy"]


def sifa_net_nano(pretrained=False, **kwargs):
    """SIFA-Net of 1.2 million parameters, for tests, demos and small data."""
    return _create("sifa_net_nano", pretrained, **kwargs)


def sifa_net_r50(pretrained=False, **kwargs):
    """SIFA-Net on ResNet-50."""
    return _create("sifa_net_r50", pretrained, **kwargs)


def sifa_net_r101(pretrained=False, **kwargs):
    """SIFA-Net on ResNet-101."""
    return _create("sifa_net_r101", pretrained, **kwargs)


def sifa_transformer_nano(pretrained=False, **kwargs):
    """SIFA-Transformer of 1.5 million parameters, for tests, demos and small data."""
    return _create("sifa_transformer_nano", pretrained, **kwargs)


def sifa_transformer_tiny(pretrained=False, **kwargs):
    """SIFA-Transformer on Swin-Tiny."""
    return _create("sifa_transformer_tiny", pretrained, **kwargs)


def sifa_transformer_small(pretrained=False, **kwargs):
    """SIFA-Transformer on Swin-Small."""
    return _create("sifa_transformer_small", pretrained, **kwargs)


def sifa_transformer_base(pretrained=False, **kwargs):
    """SIFA-Transformer on Swin-Base."""
    return _create("sifa_transformer_base", pretrained, **kwargs)


def sifa_transformer_large(pretrained=False, **kwargs):
    """SIFA-Transformer on Swin-Large."""
    return _create("sifa_transformer_large", pretrained, **kwargs)


def sifa_net_r50_k400(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-50 for Kinetics-400."""
    return _tagged("sifa_net_r50", "k400", pretrained, {"num_classes": 400, **kwargs})


def sifa_net_r50_ssv1(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-50 for Something-Something V1."""
    return _tagged("sifa_net_r50", "ssv1", pretrained, {"num_classes": 174, **kwargs})


def sifa_net_r50_ssv2(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-50 for Something-Something V2."""
    return _tagged("sifa_net_r50", "ssv2", pretrained, {"num_classes": 174, **kwargs})


def sifa_net_r101_k400(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-101 for Kinetics-400."""
    return _tagged("sifa_net_r101", "k400", pretrained, {"num_classes": 400, **kwargs})


def sifa_net_r101_ssv1(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-101 for Something-Something V1."""
    return _tagged("sifa_net_r101", "ssv1", pretrained, {"num_classes": 174, **kwargs})


def sifa_net_r101_ssv2(pretrained=True, **kwargs):
    """SIFA-Net on ResNet-101 for Something-Something V2."""
    return _tagged("sifa_net_r101", "ssv2", pretrained, {"num_classes": 174, **kwargs})


def sifa_transformer_k400(pretrained=True, **kwargs):
    """SIFA-Transformer on Swin-Base for Kinetics-400."""
    return _tagged("sifa_transformer_base", "k400", pretrained, {"num_classes": 400, **kwargs})


def sifa_transformer_ssv1(pretrained=True, **kwargs):
    """SIFA-Transformer on Swin-Base for Something-Something V1."""
    return _tagged("sifa_transformer_base", "ssv1", pretrained, {"num_classes": 174, **kwargs})


def sifa_transformer_ssv2(pretrained=True, **kwargs):
    """SIFA-Transformer on Swin-Base for Something-Something V2."""
    return _tagged("sifa_transformer_base", "ssv2", pretrained, {"num_classes": 174, **kwargs})


def sifa_net_nano_motion(pretrained=True, **kwargs):
    """SIFA-Net of 1.2 million parameters for the eight classes of generated motion clips."""
    return _tagged("sifa_net_nano", "motion", pretrained, {"num_classes": 8, **kwargs})


def sifa_transformer_nano_motion(pretrained=True, **kwargs):
    """SIFA-Transformer of 1.5 million parameters for the eight classes of generated motion clips."""
    return _tagged("sifa_transformer_nano", "motion", pretrained, {"num_classes": 8, **kwargs})


def timm_trunk(name, pretrained=False, **kwargs):
    """SIFA in an image model of timm: `torch.hub.load(repo, "timm_trunk", "convnext_tiny")`."""
    return _create(f"timm:{name}", pretrained, **kwargs)


def _create(name, pretrained, **kwargs):
    from sifa_zoo import create_model

    return create_model(name, pretrained, **kwargs)


def _tagged(architecture, tag, pretrained, kwargs):
    return _create(f"{architecture}.{tag}" if pretrained else architecture, pretrained, **kwargs)
