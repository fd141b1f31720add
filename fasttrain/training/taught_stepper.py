"""Steps in which a moving average of the model teaches it."""

from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from fasttrain.inference.forward import autocast
from fasttrain.training.mean_teacher import BatchNorm, MeanTeacher
from fasttrain.training.stepper import Stepper


class TeacherSettings(Protocol):
    """What settings with a teacher say of it.

    Attributes:
        alpha, batch_norm: see `MeanTeacher`.
        keep: whose weights are the run's; the other's are saved and measured beside them.
    """

    @property
    def alpha(self) -> float: ...
    @property
    def batch_norm(self) -> BatchNorm: ...
    @property
    def keep(self) -> Literal["student", "teacher"]: ...


class TaughtStepper(Stepper):
    """A stepper with a teacher, which is saved and restored as the run's moving average.

    Attributes:
        settings: of the teacher, among others.
    """

    saves_beside: ClassVar[bool] = True
    settings: TeacherSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mean_teacher = MeanTeacher(self.module, self.settings.alpha, self.settings.batch_norm)
        self.ema = self.mean_teacher
        self._checked = False

    @property
    def kept(self) -> nn.Module:
        """The student, or the teacher, as the settings say."""
        return self.module if self.settings.keep == "student" else self.mean_teacher.module

    @property
    def beside(self) -> tuple[str, nn.Module]:
        """The other one of the two."""
        if self.settings.keep == "student":
            return "teacher", self.mean_teacher.module
        return "student", self.module

    def _require_deterministic(self, images: Tensor) -> None:
        """Look once at the teacher's answers to images.

        Raises:
            TrainingError: they are not always the same.
        """
        if not self._checked:
            with autocast(self.device, self.amp):
                self.mean_teacher.require_deterministic(images)
            self._checked = True
