import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fasttrain.base.config import load_settings
from fasttrain.loading.batch import Batch
from fasttrain.training.pictures import pixels_of, sample_grid, shown_name
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_normalisation_is_undone_to_the_same_bytes():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    shape = (1, 3, 1, 1)
    images = (pixels / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    assert torch.equal(torch.from_numpy(pixels_of(images, MEAN, STD)), pixels.permute(0, 2, 3, 1))


def test_only_valid_samples_are_shown():
    valid = torch.tensor([True, False, True])
    batch = Batch(torch.ones(3, 3, 8, 8), torch.tensor([1, 0, 0]), torch.arange(3), valid)
    grid = sample_grid(batch, ["cat", "dog"], MEAN, STD)
    assert grid.dtype == np.uint8 and grid.shape == (192, 1002, 3)
    colour = pixels_of(batch.images[:1], MEAN, STD)[0, 0, 0]
    shown = (grid == colour).all(2)
    assert shown.sum() == 2 * 160 * 160 and shown[26:186, 6:166].all() and shown[26:186, 172:332].all()
    named = (grid != 255).any(2)[6:26]
    assert named[:, 6:166].any() and named[:, 172:332].any() and not named[:, 338:].any()


def test_names_are_shortened():
    names = ["cat", "a name of more than twenty letters"]
    assert [shown_name(label, names) for label in (0, 1, 2)] == ["cat", "a name of more than t…", "2"]
    assert shown_name(3, None) == "3"


def test_a_run_shows_its_first_batch_in_tensorboard(colour_tree, tmp_path):
    values = {
        "data": str(colour_tree), "model": "test_resnet", "out": str(tmp_path / "run"), "epochs": 2, "batch_size": 6,
        "size": 32, "device": "cpu",
    }  # fmt: skip
    run = train(load_settings(TrainSettings, values)).run
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("training samples")] == [0]
