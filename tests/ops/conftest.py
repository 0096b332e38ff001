import os

import pytest
import torch

from sifa_zoo.ops import native


@pytest.fixture(params=["torch", "cpu", "cuda"])
def backend(request):
    """Each backend that can run here; a GPU may be demanded with FAIL_WITHOUT_CUDA=1."""
    name = request.param
    if name != "torch" and isinstance(reason := native.load(name, may_build=True), str):
        if name == "cuda" and os.environ.get("FAIL_WITHOUT_CUDA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return name


@pytest.fixture
def device(backend):
    return torch.device("cuda" if backend == "cuda" else "cpu")
