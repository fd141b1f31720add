"""ResNet-50, the same step each time: a batch that stays on the device, one that crosses each time, the real Loader."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.loading.optional import why_absent
from gpu.common import Row, Task, seconds_of
from gpu.decoders import write_beton

Batches = Iterator[tuple[Tensor, Tensor]]
ROUNDS = 3


def training(task: Task) -> None:
    """Images a second of each source of batches, interleaved; and the shares of the synthetic one's."""
    size, batch = (32, 8) if task.small else (224, 256)
    step = _step(task)
    with TemporaryDirectory(prefix="fasttrain_gpu_") as folder:
        beton = write_beton(task, Path(folder))
        sources: dict[str, Callable[[], Batches]] = {
            "synthetic": lambda: _synthetic(task, size, batch),
            "cached": lambda: _cached(task, size, batch),
            "real": lambda: _real(task, beton, size, batch, 0.0),
            "real, colour jitter 0.4": lambda: _real(task, beton, size, batch, 0.4),
        }
        if task.device.type == "cuda" and why_absent("dali") is None:
            sources["real, DALI on the GPU"] = lambda: _real(task, beton, size, batch, 0.0, "dali")
        rates: dict[str, list[float]] = {name: [] for name in sources}
        errors: dict[str, str] = {}
        steps = _warm_up(task, step, sources["synthetic"](), len(sources))
        for _ in range(1 if task.small else ROUNDS):
            for name, make in sources.items():
                if task.left() < 5 or name in errors:
                    continue
                try:
                    rates[name].append(_rate(task, step, make(), steps, batch))
                except Exception as error:  # one that fails is told, the others go on
                    errors[name] = f"{type(error).__name__}: {error}"
            _report(task, rates, errors, {"steps": steps, "batch": batch})


def _report(task: Task, rates: dict[str, list[float]], errors: dict[str, str], labels: Row) -> None:
    """Rows of what is known so far; those of the next round take their place."""
    for name, rounds in rates.items():
        if not rounds:
            task.add({"name": name, "error": errors.get(name, "the section's time was over")})
            continue
        row = {"name": name, "images_per_s": statistics.median(rounds), "rounds": list(rounds), **labels}
        if name != "synthetic" and rates["synthetic"]:
            row["share_of_synthetic"] = row["images_per_s"] / statistics.median(rates["synthetic"])
        task.add(row)


def _step(task: Task) -> Callable[[Tensor, Tensor], None]:
    model = _model(task).to(task.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=task.device.type == "cuda")
    ready = model if task.small else torch.compile(model)

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.autocast(task.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(ready(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _model(task: Task) -> nn.Module:
    """ResNet-50 of timm, else of torchvision."""
    if task.small:
        features = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*features, nn.Linear(8, 1000))
    try:
        import timm
    except ImportError:
        from torchvision.models import resnet50

        return resnet50()
    return timm.create_model("resnet50")


def _warm_up(task: Task, step: Callable[[Tensor, Tensor], None], batches: Batches, sources: int) -> int:
    """Compile, and find the steps that fill a round."""
    for images, labels in itertools.islice(batches, 2 if task.small else 10):
        step(images, labels)
    some = list(itertools.islice(batches, 2 if task.small else 10))
    once = seconds_of(lambda: [step(images, labels) for images, labels in some], task.device) / len(some)
    # All sources and rounds, and a margin for starting loaders.
    wanted = max(0.1, task.left() / (sources * ROUNDS) * 0.6)
    return 2 if task.small else max(10, min(200, int(wanted / once)))


def _rate(task: Task, step: Callable[[Tensor, Tensor], None], batches: Batches, steps: int, batch: int) -> float:
    for images, labels in itertools.islice(batches, 1 if task.small else 6):  # what was filled ahead does not count
        step(images, labels)

    def train() -> None:
        for images, labels in itertools.islice(batches, steps):
            step(images, labels)

    try:
        return steps * batch / seconds_of(train, task.device)
    finally:
        batches.close()  # type: ignore[attr-defined]


def _synthetic(task: Task, size: int, batch: int) -> Batches:
    dtype = torch.bfloat16 if task.device.type == "cuda" else torch.float32
    images = torch.randn(batch, 3, size, size, device=task.device, dtype=dtype).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device=task.device)
    while True:
        yield images, labels


def _cached(task: Task, size: int, batch: int) -> Batches:
    from fasttrain.loading.device_stage import DeviceStage
    from fasttrain.loading.views import train_view

    dtype = torch.bfloat16 if task.device.type == "cuda" else torch.float32
    stage = DeviceStage(train_view(size), task.device, dtype)
    host = stage.empty_batch(batch, size, False)
    host.numpy()[:] = np.random.default_rng(0).integers(0, 256, tuple(host.shape), np.uint8)
    labels = torch.zeros(batch, dtype=torch.int64)
    while True:
        images, moved = stage.run(host, None, labels)
        yield images, moved


def _real(task: Task, beton: Path, size: int, batch: int, jitter: float, backend: str = "auto") -> Batches:
    from fasttrain import Loader, Sampling, train_view

    dtype = torch.bfloat16 if task.device.type == "cuda" else torch.float32
    view = train_view(size, color_jitter=jitter)
    sampling = Sampling(draws=max(task.images, 20 * batch))
    options = {"device": task.device, "dtype": dtype, "sampling": sampling, "backend": backend}
    with Loader(beton, batch, view=view, **options) as loader:
        while True:
            for images, labels, _, _ in loader:
                yield images, labels.clamp(min=0)
