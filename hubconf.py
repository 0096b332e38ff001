"""Entry points of torch.hub: `torch.hub.load("OWNER/sifa_zoo", "sifa_net_r50")`, one function per architecture.

Arguments are those of `sifa_zoo.create_model`. Imports stand inside the functions, because torch.hub reads this file
before it checks `dependencies`.
"""

dependencies = ["torch", "timm", "safetensors"]


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


def _create(name, pretrained, **kwargs):
    from sifa_zoo import create_model

    return create_model(name, pretrained, **kwargs)
