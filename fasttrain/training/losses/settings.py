"""Settings of the loss."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings, nearest_name, refuse_idle
from fasttrain.training.losses.registry import KINDS, Kind
from fasttrain.training.losses.weights import RULES

if TYPE_CHECKING:
    from fasttrain.training.settings import TrainSettings


class LossSettings(Settings):
    """What is minimised. Labels are smoothed by the run's `label_smoothing`.

    Attributes:
        kind: ``ce``, ``bce``, ``focal``, ``jsd`` (the first of three views as usual, and how far the predictions of the
            three lie apart), and for frequent and rare classes ``balanced_softmax``, ``logit_adjustment``, ``seesaw``,
            ``softmax_eql``.
        threshold: ``bce``: targets above it become 1, others 0.
        sum_classes: ``bce``: the sum over the classes instead of the mean.
        gamma: ``focal``: how much less a sample counts that is told well already.
        alpha: ``jsd``: of the divergence.
        tau: ``logit_adjustment``, ``softmax_eql``: of the shift.
        mitigation, compensation: ``seesaw``: the paper's p and q.
        eps: ``softmax_eql``: the least gradient of a class.
        indicator: ``softmax_eql``: gradients of a class's own samples, of the others, or their ratio and the latter.
        class_weights: ``inverse`` or ``effective`` (number of samples), a number for each class, or a file of them; a
            sample's loss counts so many times (see `fasttrain.training.losses.weights`).
        beta: of ``effective``.
        hardest: share of each process's batch that learns, that with the largest losses (OHEM: Shrivastava et al.,
            CVPR 2016, arXiv 1604.03540); the loss is the mean over these.
    """

    kind: str = "ce"
    threshold: float | None = Field(default=None, ge=0, lt=1)
    sum_classes: bool = False
    gamma: float = Field(default=2.0, ge=0)
    alpha: float = Field(default=12.0, ge=0)
    tau: float = Field(default=1.0, gt=0)
    mitigation: float = Field(default=0.8, ge=0)
    compensation: float = Field(default=2.0, ge=0)
    eps: float = Field(default=1e-4, gt=0)
    indicator: Literal["pos", "neg", "pos_and_neg"] = "pos"
    class_weights: str | tuple[float, ...] | None = None
    beta: float = Field(default=0.9999, ge=0, lt=1)
    hardest: float = Field(default=1.0, gt=0, le=1)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"there is no such loss; {nearest_name(kind, list(KINDS))}")
        return kind

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "LossSettings":
        used = {"kind", "class_weights", "hardest", *self.needs.settings}
        used |= {"beta"} if self.class_weights == "effective" else set()
        refuse_idle(self, used, f"loss {self.kind}")
        return self

    @property
    def needs(self) -> Kind:
        """What the chosen kind needs."""
        return KINDS[self.kind]

    @property
    def corrects_frequencies(self) -> bool:
        """Whether it makes up for classes of unequal size, by their counts."""
        return self.needs.counts or self.class_weights in RULES


def conflict(settings: "TrainSettings") -> str | None:
    """What of a run's settings does not go with its loss, head and BatchFormer, as a sentence; None if all does."""
    loss, head = settings.loss, settings.head
    if settings.micro_batch is not None:
        if loss.hardest < 1:
            return "loss.hardest chooses among all samples of a batch, which micro_batch takes apart; leave one out"
        if settings.batch_former.layers:
            return "batch_former relates the images of a whole batch, which micro_batch takes apart; leave one out"
    if loss.corrects_frequencies and settings.sampling.class_balance > 0:
        what = f"loss {loss.kind}" if loss.needs.counts else f"class_weights {loss.class_weights}"
        return f"{what} makes up for rare classes, and so does sampling.class_balance; leave one out"
    if loss.needs.views > 1 and settings.backend == "ffcv":
        return f"loss {loss.kind} compares {loss.needs.views} views of each sample; take another backend than ffcv"
    if loss.kind == "jsd" and head.kind == "arcface":
        return "loss jsd compares predictions, which a margin distorts; take head cosine, or another loss"
    if loss.kind == "bce" and head.kind == "arcface":
        return "loss bce takes each class for itself, and a margin is one to the other classes; take loss ce"
    return None
