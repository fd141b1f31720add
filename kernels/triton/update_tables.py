"""Where the tensors of a step lie, and what it does with them: tables on the device that its kernels read.

As in apex's multi_tensor_apply, every tensor is cut into chunks, and a program takes a chunk and looks up whose it is.
Here the addresses lie in the device's memory too, and not among a kernel's arguments, so that a launch is the same in
every step: `Tables.refresh` copies what has changed (addresses of gradients, learning rates), and never waits.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.device_stage_plain import upload
from fasttrain.kernels.weight_update import Rates, Weights

CHUNK = 8192  # values
# Columns of a tensor's row of integers: addresses, number of values, group, type of the gradient, whether all addresses
# are multiples of 16, number of its first chunk, number of its chunks.
VALUE, GRADIENT, MEAN, SQUARE, AVERAGE, SIZE, GROUP, KIND, ALIGNED, FIRST, CHUNKS = range(11)
TENSOR_COLUMNS = 11
# Columns of a group's row of float64.
LR, BETA1, BETA2, LOG1, LOG2, EPS, DECAY, ADAPTS, FOLLOW = range(9)
RATE_COLUMNS = 9
DECISIONS = 16  # columns of float32 that a step works out for each tensor
KINDS = {torch.float32: 0, torch.bfloat16: 1}  # of gradients; one that is absent counts as the first


class Tables:
    """The tables of one set of weights.

    Attributes:
        tensors: (N, 11) int64.
        owners: (C,) int32, which tensor a chunk is of.
        rates: (G, 9) float64.
        decisions: (N, 16) float32, written and read by the kernels.
        partials: (2, C) float32, sums over chunks, the same.
        ratios: (N,) float32, the same.
        one, zero: 0-dim float32, for a scale and a mark of infinities that say nothing.
        kinds: types of gradients that there are (a gradient of another is converted).

    Raises:
        ValueError: a tensor is not dense, not float32, or does not lie as its weight does.
    """

    def __init__(self, weights: Weights, groups: int) -> None:
        self.weights = weights
        self.device = weights.steps.device
        self.averaging = weights.averages is not None
        self._check()
        rows = self._fixed_rows()
        self._rows, self._rates = rows, np.full((groups, RATE_COLUMNS), np.nan)
        self._kept: list[Tensor] = []  # gradients that had to be converted
        self.count, self.chunks = len(rows), int(rows[:, CHUNKS].sum())
        self.kinds: tuple[int, ...] = (0,)
        self.tensors = upload(rows, self.device).clone()
        self.owners = upload(np.repeat(np.arange(len(rows)), rows[:, CHUNKS]).astype(np.int32), self.device).clone()
        self.rates = torch.zeros((groups, RATE_COLUMNS), dtype=torch.float64, device=self.device)
        self.decisions = torch.zeros((self.count, DECISIONS), device=self.device)
        self.partials = torch.zeros((2, max(1, self.chunks)), device=self.device)
        self.ratios = torch.ones(self.count, device=self.device)
        self.one, self.zero = torch.ones((), device=self.device), torch.zeros((), device=self.device)

    def _check(self) -> None:
        weights = self.weights
        for others in (weights.means, weights.squares, weights.averages or weights.values):
            for value, other in zip(weights.values, others, strict=True):
                if torch.empty_like(value, device="meta").stride() != value.stride() or value.dtype != torch.float32:
                    raise ValueError(
                        f"weights must be dense and float32, not {value.dtype} of strides {value.stride()}"
                    )
                if other.dtype != value.dtype or other.shape != value.shape or not _lie_alike(other, value):
                    raise ValueError("the moments and the average of a weight must have its type, shape and layout")

    def _fixed_rows(self) -> np.ndarray:
        """(N, 11) int64: all that stays as it is from step to step."""
        weights = self.weights
        rows = np.zeros((len(weights.values), TENSOR_COLUMNS), np.int64)
        columns = {VALUE: weights.values, MEAN: weights.means, SQUARE: weights.squares, AVERAGE: weights.averages}
        for column, tensors in columns.items():
            if tensors is not None:
                rows[:, column] = [tensor.data_ptr() for tensor in tensors]
        rows[:, SIZE] = [tensor.numel() for tensor in weights.values]
        rows[:, GROUP] = list(weights.groups)
        rows[:, CHUNKS] = -(-rows[:, SIZE] // CHUNK)
        rows[:, FIRST] = np.cumsum(rows[:, CHUNKS]) - rows[:, CHUNKS]
        rows[:, ALIGNED] = -1  # until the first gradients have come
        return rows

    def refresh(self, gradients: Sequence[Tensor | None], rates: Sequence[Rates], follow: float) -> None:
        """Make the tables those of the next step.

        Args:
            gradients: of each weight; they have to live until the step has been launched.
            follow: share of the way to the weights that their averages go.
        """
        rows = self._rows.copy()
        self._kept = []
        rows[:, GRADIENT], rows[:, KIND] = 0, 0
        for number, (value, gradient) in enumerate(zip(self.weights.values, gradients, strict=True)):
            if gradient is not None:
                usable = self._usable(gradient, value)
                rows[number, GRADIENT] = usable.data_ptr() or 16  # one of an empty tensor, which is never read
                rows[number, KIND] = KINDS[usable.dtype]
        rows[:, ALIGNED] = (rows[:, VALUE : AVERAGE + 1] % 16 == 0).all(1)
        if not np.array_equal(rows, self._rows):
            self._rows = rows
            self.kinds = tuple(np.unique(rows[:, KIND]).tolist())
            self._send(rows, self.tensors)
        packed = np.array([_packed(rate, follow) for rate in rates])
        if not np.array_equal(packed, self._rates):
            self._rates = packed
            self._send(packed, self.rates)

    def _usable(self, gradient: Tensor, value: Tensor) -> Tensor:
        """The gradient in a type and layout that kernels read: most often itself."""
        if gradient.is_sparse:
            raise RuntimeError("sparse gradients are not for the fused optimizers; take adamw or lamb")
        if gradient.dtype in KINDS and _lie_alike(gradient, value):
            return gradient
        self._kept.append(torch.empty_like(value).copy_(gradient))
        return self._kept[-1]

    def _send(self, array: np.ndarray, to: Tensor) -> None:
        host = torch.from_numpy(array)
        to.copy_(host.pin_memory() if self.device.type == "cuda" else host, non_blocking=True)


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether equal places in memory hold equal indices; the stride of a dimension of length 1 says nothing."""
    if one.stride() == other.stride():
        return True
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(length == 1 or mine == theirs for length, mine, theirs in strides)


def _packed(rate: Rates, follow: float) -> list[float]:
    logs = [math.log(beta) if beta > 0 else -math.inf for beta in rate.betas]
    return [rate.lr, *rate.betas, *logs, rate.eps, rate.weight_decay, float(rate.adapts), follow]
