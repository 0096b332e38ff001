"""What is known of files in the cache of downloads, and a cache that cannot be used."""

import hashlib
import os
import shutil
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
from huggingface_hub import scan_cache_dir

import sifa_zoo
from sifa_zoo.weights.hub import CacheError, CorruptError, WeightsError, download
from sifa_zoo.weights.stated_hash import Stated, remember_sha256, stated_sha256

REPO, FILE = "someone/something", "model.safetensors"
DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def published(hub):
    hub.add(REPO, {FILE: DATA, "sub/other.safetensors": DATA[::-1], "config.json": b"{}"})
    return hub


@pytest.fixture
def no_links(monkeypatch):
    """A cache on a file system without symbolic links."""
    monkeypatch.setattr(hf, "HF_HUB_DISABLE_SYMLINKS", True)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", [FILE, "sub/other.safetensors"])
def test_a_flipped_byte_is_found_without_links(published, no_links, monkeypatch, file):
    path = download(REPO, file)
    assert not path.is_symlink()
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    assert download(REPO, file) == path
    flip_a_byte(path)
    with pytest.raises(CorruptError, match=r"has the sha256 \w{64}, expected \w{64}; it was removed"):
        download(REPO, file)
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", False)
    assert hashlib.sha256(download(REPO, file).read_bytes()).hexdigest() == stated_sha256(path, file)


def test_wrong_bytes_of_a_download_are_found_without_links(published, no_links):
    published.fail("/cdn/", corrupt=True)
    with pytest.raises(CorruptError, match=f"expected {SHA256}; it was removed"):
        download(REPO, FILE)
    assert download(REPO, FILE).read_bytes() == DATA


def test_an_overloaded_hub_is_asked_for_the_hash_again(published, no_links):
    published.fail("/resolve/", status=503, times=1)
    assert stated_sha256(download(REPO, FILE), FILE) == SHA256


def test_only_hashes_of_this_commit_are_kept(published, no_links):
    path = download(REPO, "config.json")
    assert stated_sha256(path, "config.json") is None  # a small file: the Hub states a sha1
    remember_sha256(path, "config.json", Stated("0" * 40, SHA256))
    assert stated_sha256(path, "config.json") is None
    remember_sha256(path, "config.json", Stated(path.parent.name, SHA256))
    assert stated_sha256(path, "config.json") == SHA256


def test_a_blob_that_repositories_share_has_a_name_of_its_own(published, tmp_path):
    path = download(REPO, FILE)
    shared = tmp_path / ("f" * 64)
    shutil.move(path.resolve(), shared)
    (path.parent / path.readlink()).symlink_to(shared)
    assert download(REPO, FILE) == path
    flip_a_byte(shared)
    with pytest.raises(CorruptError, match="it was removed"):
        download(REPO, FILE)
    assert not shared.exists()
    assert download(REPO, FILE).read_bytes() == DATA


def test_a_cache_that_is_a_file(published, monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(CacheError, match=f"{REPO}/{FILE}: the cache .*home.* cannot be used .*HF_HOME or HF_HUB_CACHE"):
        download(REPO, FILE, cache_dir=tmp_path / "home")
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    with pytest.raises(WeightsError, match="the cache .*home.hub cannot be used .*Not a directory"):
        sifa_zoo.create_model(f"hf-hub:{REPO}")


@pytest.mark.parametrize("function", ["os.makedirs", "os.listdir"])
def test_a_cache_without_permission(published, monkeypatch, function):
    if function == "os.listdir":
        download(REPO, "config.json")

    def deny(path, *_args, **_kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(function, deny)
    with pytest.raises(CacheError, match=r"cannot be used \(\[Errno 13\] Permission denied: .*cache_dir="):
        download(REPO, FILE)


def test_a_cache_that_can_only_be_read(published, no_links):
    path = download(REPO, FILE)
    note = next(Path(hf.HF_HUB_CACHE).rglob(".sha256"))
    shutil.rmtree(note)
    note.write_text("")  # so no folder can be made
    remember_sha256(path, FILE, Stated(path.parent.name, SHA256))
    assert download(REPO, FILE) == path
    assert os.path.isfile(note)


def test_the_note_does_not_disturb_others(published, no_links):
    path = download(REPO, FILE)
    found = scan_cache_dir(hf.HF_HUB_CACHE)
    assert (len(found.repos), found.warnings) == (1, [])
    found.delete_revisions(path.parent.name).execute()
    assert not list(Path(hf.HF_HUB_CACHE).rglob(".sha256"))
