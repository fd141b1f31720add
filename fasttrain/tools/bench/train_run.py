"""A process that runs one contestant of the training benchmark once: ``python -m … JOB.json``."""

import importlib
import math
import random
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.forward import Amp
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import eval_view
from fasttrain.models.weights import read_state_dict
from fasttrain.tools.bench.contestant_process import print_figures
from fasttrain.tools.bench.memory import PeakMemory
from fasttrain.tools.bench.train_job import EQUAL, TrainJob
from fasttrain.tools.bench.train_watch import Watch
from fasttrain.tools.bench.wrong_output import WrongOutputError
from fasttrain.training.speed import set_precision

LR_TOLERANCE = 1e-3  # of the peak
CLAIM_TOLERANCE = 0.03  # of a top-1
CLAIM_IMAGES = 4  # or so many images: decoders and precision round differently
SHARE_OF_STEPS = 4  # the first and the last loss are means over this part of the steps


def main() -> None:
    """Train, check, and print the figures."""
    job = TrainJob.read(Path(sys.argv[1]))
    print_figures(lambda: run(job))


def run(job: TrainJob) -> dict[str, Any]:
    """Have one contestant train, and look at what it did.

    Returns:
        value: images/s behind the uncounted steps; train_s, validation_s, target_s: see `Watch`; first_loss, loss:
            mean over the first and the last quarter of the steps; top1: of the model that it returned, by one and the
            same evaluation for all (None without validation data); curve; peak_bytes: memory above that of the imports,
            and on a GPU peak_gpu_bytes: its memory.

    Raises:
        WrongOutputError: it did other work than it was asked for.
    """
    module_name, _, function = job.function.partition(":")
    train = getattr(importlib.import_module(module_name), function)  # before the clock starts
    torch.set_num_threads(job.threads)
    set_precision(tf32=True)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(job.seed)
    watch, memory = Watch(job), PeakMemory()
    model = train(job, watch)
    peak = memory.stop()
    on_gpu = {"peak_gpu_bytes": torch.cuda.max_memory_allocated()} if job.device.startswith("cuda") else {}
    losses = watch.losses
    check_work(job, watch, losses)
    check_model(job, model)
    top1 = measured_top1(job, model) if job.val_beton else None
    check_claim(job, watch, top1)
    part = max(1, len(losses) // SHARE_OF_STEPS)
    return {
        "value": watch.images_per_s,
        "train_s": round(watch.train_s, 2),
        "validation_s": round(watch.validation_s, 2),
        "target_s": None if watch.target_s is None else round(watch.target_s, 2),
        "first_loss": round(fmean(losses[:part]), 4),
        "loss": round(fmean(losses[-part:]), 4),
        "top1": None if top1 is None else round(top1, 4),
        "curve": [[round(seconds, 2), round(value, 4)] for seconds, value in watch.curve],
        "steps": watch.steps,
        "peak_bytes": peak,
        **on_gpu,
    }


def check_work(job: TrainJob, watch: Watch, losses: list[float]) -> None:
    """See that as many steps were taken as were asked for, of whole batches, at the rates that were asked for.

    Raises:
        WrongOutputError: not so, or a loss is not finite.
    """
    if (watch.steps, watch.images) != (job.steps, job.steps * job.batch_size):
        raise WrongOutputError(
            f"it took {watch.steps} steps with {watch.images} images, and not {job.steps} with "
            f"{job.steps * job.batch_size}"
        )
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise WrongOutputError(f"its loss is {loss} in step {step + 1}")
    for step, lr in enumerate(watch.lrs if job.settings == EQUAL else []):
        wanted = job.lr * job.lr_share(step)
        if abs(lr - wanted) > LR_TOLERANCE * job.lr:
            raise WrongOutputError(f"its learning rate is {lr:.3g} in step {step + 1}, and not {wanted:.3g}")


@torch.inference_mode()
def check_model(job: TrainJob, model: nn.Module) -> None:
    """See that a model gives logits of all classes, and that every weight has moved from where all began.

    Raises:
        WrongOutputError: not so.
    """
    images = torch.zeros(2, 3, job.size, job.size, device=job.device)
    logits = model.eval()(images)
    if not isinstance(logits, Tensor) or logits.shape != (2, job.classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise WrongOutputError(f"its model gives {found}, and not {(2, job.classes)}")
    if not torch.isfinite(logits).all():
        raise WrongOutputError("its model gives values that are not finite")
    began = read_state_dict(job.weights)
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and torch.equal(parameter.float().cpu(), began[name].float())
    ]
    if still:
        raise WrongOutputError(f"it trained nothing in {still[0]}, and in {len(still) - 1} other weights")


def measured_top1(job: TrainJob, model: nn.Module) -> float:
    """Top-1 on the validation data, 0–1: this package's exact evaluation, whoever trained."""
    amp: Amp = "bf16" if job.amp == "bf16" and job.settings == EQUAL else "off"
    view = eval_view(
        job.size,
        crop_pct=job.crop_pct,
        crop_mode=job.crop_mode,
        interpolation=job.interpolation,
        mean=job.mean,
        std=job.std,
    )
    with Loader(job.val_beton, job.batch_size, view=view, device=job.device, threads=job.threads) as loader:
        return float(evaluate(model, loader, job.classes, amp=amp)["top1"])


def check_claim(job: TrainJob, watch: Watch, top1: float | None) -> None:
    """See that a contestant validated after each epoch, and that its last top-1 holds.

    Raises:
        WrongOutputError: not so.
    """
    if top1 is None:
        return
    if len(watch.curve) != job.epochs:
        raise WrongOutputError(f"it validated {len(watch.curve)} times in {job.epochs} epochs")
    claimed = watch.curve[-1][1]
    if abs(claimed - top1) > max(CLAIM_TOLERANCE, CLAIM_IMAGES / job.val_images) + 1e-6:
        raise WrongOutputError(f"it says that its top-1 is {claimed:.4f}, but it is {top1:.4f}")


if __name__ == "__main__":
    main()
