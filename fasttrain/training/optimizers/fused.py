"""AdamW and LAMB in our own kernels for GPUs: clipping, update and the weights' moving average in one pass.

State has the names and meaning that torch's AdamW gives it, so the `state_dict` of either can be loaded by the other.
"""

import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fasttrain.base.errors import ConfigError
from fasttrain.kernels.triton.update_tables import Tables
from fasttrain.kernels.weight_update import Clipping, Rates, Scaling, Weights
from fasttrain.training.optimizers.multi_tensor import check_defaults


class FusedOptimizer(torch.optim.Optimizer):
    """Base of both. A step is `refresh`, which the host does, and `launch`, which is kernels alone; neither waits.

    `torch.amp.GradScaler` leaves unscaling to it, and a step that is to be left out is left out on the device.

    Attributes:
        max_grad_norm: all gradients together are brought to this L2 norm at the most; None for no clipping.
        average_decay: of the average that `average_into` named, in the next step.

    Raises:
        ConfigError: the parameters are not on a GPU, or not float32.
    """

    name: str  # of the optimizer that does the same elsewhere
    _step_supports_amp_scaling = True
    clip_floor: float

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        check_defaults(defaults)
        self._tables: Tables | None = None  # built in the first step, and again when tensors have been replaced
        self._addresses: list[int] = []
        self._averages: dict[Tensor, Tensor] = {}
        # By this key torch knows that `step` lies on the device, here and where the state is given to its own AdamW.
        super().__init__(params, {**defaults, "fused": True})
        self.max_grad_norm = max_grad_norm
        self.average_decay = 0.0
        self._check_parameters()

    @abstractmethod
    def _run(self, tables: Tables, clipping: Clipping | None, scaling: Scaling | None) -> None:
        """Launch the kernels."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._tables = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._tables = None

    def average_into(self, averages: Mapping[Tensor, Tensor]) -> None:
        """Have each step move a parameter's average after its update, by torch's `lerp` of ``1 - average_decay``.

        Parameters without a gradient, and steps that are left out for a gradient that is not finite, count as well.

        Raises:
            ValueError: a parameter has no average.
        """
        if any(parameter not in averages for parameter in self._parameters):
            raise ValueError("each parameter of the optimizer needs an average")
        self._averages = {parameter: averages[parameter].detach() for parameter in self._parameters}
        self._tables = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, and the averages; gives what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.refresh()
        self.launch()
        return loss

    @torch.no_grad()
    def refresh(self) -> None:
        """Tell the device what the next step goes by: rates, and where gradients lie. It copies what has changed."""
        parameters = self._parameters
        if self._tables is None or self._addresses != [parameter.data_ptr() for parameter in parameters]:
            self._tables = self._new_tables(parameters)
            self._addresses = [parameter.data_ptr() for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        rates = [self._rates(group) for group in self.param_groups]
        self._tables.refresh(gradients, rates, 1 - self.average_decay)

    def launch(self) -> None:
        """Take the step that `refresh` has prepared."""
        tables = self._tables
        if tables is None:
            raise RuntimeError("refresh() comes before launch()")
        clipping = None if self.max_grad_norm is None else Clipping(self.max_grad_norm, self.clip_floor)
        # A GradScaler sets both for this step alone; the scale is None if gradients have been unscaled already.
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        scaling = None
        if scale is not None or found_inf is not None:
            scaling = Scaling(tables.one if scale is None else scale, tables.zero if found_inf is None else found_inf)
        with torch.cuda.device_of(tables.one):  # Triton launches on the current device
            self._run(tables, clipping, scaling)

    def _rates(self, group: dict[str, Any]) -> Rates:
        adapts = bool(group["weight_decay"] or group.get("always_adapt", False))
        return Rates(float(group["lr"]), tuple(group["betas"]), group["eps"], group["weight_decay"], adapts)

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _new_tables(self, parameters: list[Tensor]) -> Tables:
        for group in self.param_groups:
            if group.get("amsgrad") or group.get("maximize"):
                raise ConfigError(f"{type(self).__name__} knows neither amsgrad nor maximize; take {self.name}")
        means, squares = (self._own_state(name, parameters) for name in ("exp_avg", "exp_avg_sq"))
        groups = [number for number, group in enumerate(self.param_groups) for _ in group["params"]]
        averages = [self._averages[parameter] for parameter in parameters] if self._averages else None
        values = [parameter.detach() for parameter in parameters]
        weights = Weights(values, means, squares, averages, self._own_steps(parameters), groups)
        return Tables(weights, len(self.param_groups))

    def _own_state(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """A running average of each parameter, in its layout; zeros where there is none yet."""
        for parameter in parameters:
            now = self.state[parameter].get(name)
            if now is None or now.stride() != parameter.stride() or now.dtype != torch.float32:
                fresh = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                self.state[parameter][name] = fresh if now is None else fresh.copy_(now)
        return [self.state[parameter][name] for parameter in parameters]

    def _own_steps(self, parameters: list[Tensor]) -> Tensor:
        """(N,) float32 on the device; each parameter's `step` is an entry of it."""
        device = parameters[0].device
        steps = [self.state[parameter].get("step", 0.0) for parameter in parameters]
        together = torch.stack([torch.as_tensor(step, dtype=torch.float32, device=device) for step in steps])
        for parameter, step in zip(parameters, together, strict=True):
            self.state[parameter]["step"] = step
        return together

    def _check_parameters(self) -> None:
        from triton.knobs import runtime

        devices = {parameter.device for parameter in self._parameters}
        if len(devices) > 1:
            raise ConfigError(f"triton:{self.name} wants all parameters on one device; take {self.name}")
        if any(device.type != "cuda" for device in devices) and not runtime.interpret:
            raise ConfigError(f"triton:{self.name} runs on CUDA GPUs alone; take {self.name}, which does the same")
        for parameter in self._parameters:
            if parameter.dtype != torch.float32:
                raise ConfigError(
                    f"triton:{self.name} updates float32 weights, not {parameter.dtype}; take {self.name}"
                )


class FusedAdamW(FusedOptimizer):
    """AdamW, as torch's; `max_grad_norm` clips as `torch.nn.utils.clip_grad_norm_` does. Gradients stay as they are."""

    name = "adamw"
    clip_floor = 1e-6

    def _run(self, tables: Tables, clipping: Clipping | None, scaling: Scaling | None) -> None:
        from fasttrain.kernels.triton.weight_update import adamw

        adamw(tables, clipping, scaling)


class FusedLamb(FusedOptimizer):
    """LAMB, as `fasttrain.training.optimizers.lamb.Lamb`, with its arguments."""

    name = "lamb"
    clip_floor = 0.0

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = 1.0,
        always_adapt: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, max_grad_norm)
        self.defaults["always_adapt"] = always_adapt
        for group in self.param_groups:
            group.setdefault("always_adapt", always_adapt)

    def _run(self, tables: Tables, clipping: Clipping | None, scaling: Scaling | None) -> None:
        from fasttrain.kernels.triton.weight_update import lamb

        lamb(tables, clipping, scaling)


def fused_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class that does `name` (``adamw`` or ``lamb``).

    Raises:
        ConfigError: Triton is not there.
    """
    try:
        importlib.import_module("triton")
    except ImportError:
        raise ConfigError(
            f"triton:{name} needs Triton, which comes with torch for CUDA on Linux; take {name}, which does the same"
        ) from None
    return {"adamw": FusedAdamW, "lamb": FusedLamb}[name]
