"""Published values where nothing is said, and nothing that labels would give a meaning."""

from typing import Any

import pytest

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.training.pretraining.settings import PretrainSettings


def settings(method: str = "moco", **values: Any) -> PretrainSettings:
    return load_settings(PretrainSettings, {"data": "a", "method": method, **values}, "pretrain")


def test_the_published_values_stand_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    moco, mae = settings("mocov2"), settings("mae")
    assert (moco.method, moco.epochs, moco.views, moco.optimizer.name) == ("moco", 200, 2, "sgd")
    assert moco.here().optimizer.lr == 0.03 and moco.here().schedule.warmup_epochs == 0
    assert (moco.augment.scale, moco.augment.jitter_prob, moco.augment.grey) == ((0.2, 1.0), 0.8, 0.2)
    assert (moco.moco.temperature, moco.moco.momentum, moco.moco.dim) == (0.2, 0.999, 128)
    assert (mae.epochs, mae.views, mae.optimizer.betas, mae.mae.mask_ratio) == (800, 1, (0.9, 0.95), 0.75)
    assert mae.here().optimizer.lr == pytest.approx(1.5e-4) and mae.here().schedule.warmup_epochs == 40
    assert settings("mae", epochs=100).here().schedule.warmup_epochs == 5
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "0")
    assert settings("mae", batch_size=512).here().optimizer.lr == pytest.approx(1.5e-4 * 16)
    assert settings("mae", optimizer={"lr": 1e-3}).here().optimizer.lr == 1e-3


def test_what_is_given_wins_and_a_stored_run_is_read_as_it_was() -> None:
    given = settings(optimizer={"momentum": 0.8}, augment={"grey": 0.0}, epochs=3)
    assert (given.optimizer.momentum, given.optimizer.weight_decay) == (0.8, 1e-4)
    assert (given.augment.grey, given.augment.blur.prob) == (0.0, 0.5)
    assert settings(schedule={"kind": "2x"}).epochs == 24
    other = settings(optimizer={"name": "lamb"})
    assert other.optimizer.momentum is None and not other.optimizer.options
    for one in (given, other, settings("mae")):
        assert load_settings(PretrainSettings, one.model_dump(mode="json")) == one


def test_the_queue_is_no_longer_than_an_epoch_and_groups_have_members(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().queue_for(10**6) == 65536
    assert settings().queue_for(5000) == 2048
    assert settings(moco={"queue": 4096}).queue_for(100) == 4096
    assert settings().groups == 8 and settings(batch_size=12).groups == 3
    assert settings(micro_batch=8).groups == 2 and settings(moco={"groups": 4}).groups == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert settings().groups == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "simclr"}, "moco"),
        ({"val": "b"}, "val means nothing to pre-training with moco"),
        ({"label_smoothing": 0.1}, "label_smoothing means nothing"),
        ({"augment": {"mixup": 0.2}}, r"augment\.mixup means nothing"),
        ({"mae": {"mask_ratio": 0.5}}, "mae means nothing to pre-training with moco"),
        ({"method": "mae", "size_schedule": {0: 32}}, "positions for images of one size"),
        ({"batch_size": 8, "moco": {"groups": 5}}, "less than 2 of 8 images a group"),
        ({"method": "mae", "mae": {"decoder_heads": 7}}, "must divide decoder_width"),
        ({"moco": {"temprature": 1}}, "did you mean"),
    ],
)
def test_what_means_nothing_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(**values)
