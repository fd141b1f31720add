import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fasttrain.base.config import load_settings
from fasttrain.loading.batch import Batch
from fasttrain.training.pictures import pixels_of, sample_grid
from fasttrain.training.run import train
from fasttrain.training.settings import TrainSettings

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_normalisation_is_undone_to_the_same_bytes():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    shape = (1, 3, 1, 1)
    images = (pixels / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    assert torch.equal(torch.from_numpy(pixels_of(images, MEAN, STD)), pixels.permute(0, 2, 3, 1))


def test_only_valid_samples_are_shown_under_their_names():
    valid = torch.tensor([True, False, True])
    batch = Batch(torch.zeros(3, 3, 8, 8), torch.tensor([1, 0, 0]), torch.arange(3), valid)
    figure = sample_grid(batch, ["$a_b$", "a name of more than twenty letters"], MEAN, STD)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a name of more than t…", "$a_b$", ""]
    figure.canvas.draw()


def test_a_run_shows_its_first_batch_in_tensorboard(colour_tree, tmp_path):
    values = {
        "data": str(colour_tree), "model": "test_resnet", "out": str(tmp_path / "run"), "epochs": 2, "batch_size": 6,
        "size": 32, "device": "cpu",
    }  # fmt: skip
    run = train(load_settings(TrainSettings, values)).run
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("training samples")] == [0]
