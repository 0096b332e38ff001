from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sifa_zoo.config import ClipConfig, TrainConfig
from sifa_zoo.training.learner import effective_rates, global_batch
from sifa_zoo.training.recipes import find_recipe, recipes

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_names():
    assert list(recipes()) == ["k400", "ssv1", "ssv2", "small"]
    assert find_recipe("small") == recipes()["small"]
    with pytest.raises(ValueError, match="recipe must be one of k400, ssv1, ssv2, small, got 'k40'"):
        find_recipe("k40")


@pytest.mark.parametrize("name", recipes())
def test_changes_to_clips_are_settings(name):
    clip = ClipConfig(**recipes()[name].clip)
    assert clip.to_dict().items() >= recipes()[name].clip.items()


def test_published_settings():
    k400, ssv1 = recipes()["k400"].train, recipes()["ssv1"].train
    assert (k400.opt, k400.lr, k400.weight_decay, k400.epochs, k400.clip_grad) == ("sgd", 0.04, 1e-4, 64, 40)
    assert (k400.warmup_epochs, k400.warmup_lr, k400.min_lr) == (1, pytest.approx(k400.lr / 100), 1e-6)
    assert global_batch(k400, num_replicas=4) == k400.lr_batch == 384
    assert effective_rates(k400, num_replicas=4).lr == k400.lr  # as published on the four GPUs of the publication
    assert (ssv1.lr, ssv1.warmup_epochs, ssv1.rand_augment, ssv1.rand_augment_magnitude) == (0.02, 5, 2, 27)
    assert (ssv1.hflip, k400.hflip) == (False, True)
    assert (ssv1.loss_weight, k400.loss_weight) == (1, 4)
    assert recipes()["ssv2"].train == ssv1


def test_page_has_every_value():
    """The table of docs/recipes.md: a row per setting, a column per recipe."""
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    head, *_ = [row for row in rows if row[0] == "setting"]
    table = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows if len(row) == len(head)}
    for name, recipe in recipes().items():
        settings = {**recipe.clip, **{f.name: getattr(recipe.train, f.name) for f in fields(TrainConfig)}}
        for setting, value in settings.items():
            written = table[setting][name]
            if isinstance(value, tuple):
                assert [float(number) for number in written.split()] == list(value), setting
            elif isinstance(value, float):
                assert float(written) == pytest.approx(value, rel=1e-3), setting
            else:
                assert written == ("auto" if setting == "workers" and value is None else str(value)), setting
    assert not [
        name
        for name in table
        if re.fullmatch(r"[a-z_]+", name)
        and name not in {"setting", *(f.name for f in fields(TrainConfig)), *(f.name for f in fields(ClipConfig))}
    ]
