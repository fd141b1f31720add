"""Classification with a co-teacher."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.inference.forward import Amp
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.training.classification import Classification
from fasttrain.training.co_teacher.domains import domain_weights, domains_of
from fasttrain.training.co_teacher.partners import PartneredLoader, with_partners_amplitudes
from fasttrain.training.co_teacher.stepper import CoTeacherStepper

_PARTNERS = 1 << 32  # is added to the seed, for the order and the views of partners; seeds of runs are below


class CoTeaching(Classification):
    """Images to one class each, with partners from all domains.

    A batch holds twice as many images as `batch_size` says, and the model sees each of them in two versions.
    """

    stepper = CoTeacherStepper

    def batches(self, loader: Loader, open_loader: Callable[..., Loader]) -> Any:
        """Each image beside another one: of a random domain, or any."""
        settings = self.settings
        beside: Loader | None = None
        try:
            weights = None
            if settings.co_teacher.domains is not None:
                domains = domains_of(settings.co_teacher.domains, loader)
                weights = domain_weights(domains, loader.rows, loader.dataset.num_samples)
            beside = open_loader(
                settings.data,
                settings.ids,
                view=self.train_view(),
                sampling=Sampling(weights=weights, draws=loader.num_samples),
                seed=settings.seed + _PARTNERS,
            )
            return PartneredLoader(loader, beside)
        except BaseException:
            for opened in (loader, beside):
                if opened is not None:
                    opened.close()
            raise

    def images_together(self, batch_size: int) -> int:
        return 2 * min(2 * batch_size, self.settings.micro_batch or 2 * batch_size)

    def examples(self, batch: Batch, loader: Loader) -> Iterator[tuple[str, Batch, Tensor | None]]:
        view, ratio = self.eval_view, self.settings.co_teacher.ratio
        moved = with_partners_amplitudes(batch, ratio, view.mean, view.std, self.settings.seed, 0)
        yield "partners' amplitudes", batch._replace(images=moved), None
        yield from super().examples(batch, loader)

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        view = self.eval_view
        return {
            **super().step_parts(module, num_classes, loader, device, amp),
            "settings": self.settings.co_teacher,
            "mean": view.mean,
            "std": view.std,
        }
