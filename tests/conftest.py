"""Tests run on the CPU, whatever there is, and with `--gpu` those marked `device` on a GPU; a Hub on loopback.

No test keeps indices of videos.
"""

import os
from importlib.util import find_spec

import huggingface_hub.constants as hf
import pytest
import torch
from hub_server import HubServer

pytest_plugins = ["odd_videos", "runs"] if find_spec("av") else []  # a GPU may be lent without PyAV


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="run only the tests marked `device`, which alone see a GPU")


def pytest_configure(config):
    """Hides GPUs from this process and its children before CUDA starts."""
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks the tests that run on a GPU: those that ask for `gpu`, and those with "cuda" as backend or device."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if "gpu" in item.fixturenames or "cuda" in (parameters.get("backend"), parameters.get("device")):
            item.add_marker(pytest.mark.device)
    if config.getoption("--gpu"):
        other = [item for item in items if item.get_closest_marker("device") is None]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item.get_closest_marker("device")]


def skip_without_gpu(reason):
    """Skips; fails instead where FAIL_WITHOUT_CUDA=1 demands a GPU of `--gpu`."""
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        skip_without_gpu("no GPU is visible to PyTorch; with one, give --gpu")
    return torch.device("cuda")


def use_endpoint(monkeypatch, url):
    """What HF_ENDPOINT does when the client is imported, for a client that is imported already."""
    monkeypatch.setattr(hf, "ENDPOINT", url)
    monkeypatch.setattr(hf, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(autouse=True)
def _no_indices_on_disk(monkeypatch):
    """Tests neither read nor fill the user's cache of video indices."""
    monkeypatch.setenv("SIFA_ZOO_INDEX", "off")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub that the real client of this process talks to, with an empty cache and no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        use_endpoint(monkeypatch, server.url)
        monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(hf, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hf, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server
