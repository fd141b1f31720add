"""What augmentation comes to for each sample of a batch: the program that the kernels carry out.

Every draw is a pure function of (seed, epoch, sample key, number of the draw), as all of the plan.
"""

from dataclasses import dataclass, field

import numpy as np

from fasttrain.kernels.augment_program import ARGUMENTS, Op, Program, Style
from fasttrain.loading.augment.corruptions import CORRUPTIONS
from fasttrain.loading.augment.levels import LEVELS, TRIVIAL_BINS, arguments_of
from fasttrain.loading.augment.policies import Policy
from fasttrain.loading.augment.settings import Augment, Dropout, Erasing
from fasttrain.loading.randomness import Operation, random_bits, uniforms

# Numbers of the draws, from Operation.AUGMENT on; each gives four values. Never re-used for something else.
_PLACE, _COLOUR, _POLICY, _LAYERS, _ERASE, _DROPOUT, _SEED = 0, 1, 2, 16, 256, 1024, 2048
_ERASE_TRIES = 10
_TOGETHER = 4

_JITTER_OPS = np.array([Op.BRIGHTNESS, Op.CONTRAST, Op.SATURATION, Op.HUE])
_NEUTRAL = np.array([1, 1, 1, 0], np.float32)


@dataclass(frozen=True)
class Draws:
    """The randomness of a batch of n samples.

    Attributes:
        known: draws that were made already: neighbours are made together, which costs little more than one.
    """

    seed: int
    epoch: int
    keys: np.ndarray
    known: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def uniforms(self, number: int) -> np.ndarray:
        """(4, n) float64 in [0, 1)."""
        if number not in self.known:
            first = number // _TOGETHER * _TOGETHER
            numbers = np.repeat(np.arange(first, first + _TOGETHER), len(self))
            keys = np.tile(self.keys, _TOGETHER)
            values = uniforms(self.seed, self.epoch, keys, Operation.AUGMENT + numbers)
            self.known.update(zip(range(first, first + _TOGETHER), np.split(values, _TOGETHER, 1), strict=True))
        return self.known[number]

    def normals(self, number: int) -> np.ndarray:
        """(4, n) float64 (Box and Muller, 1958)."""
        first, angle, second, other = self.uniforms(number)
        radius, further = (np.sqrt(-2 * np.log1p(-values)) for values in (first, second))
        turns = 2 * np.pi * np.stack([angle, angle + 0.25, other, other + 0.25])
        return np.stack([radius, radius, further, further]) * np.cos(turns)

    def some(self, chosen: np.ndarray) -> "Draws":
        """Those of some of the samples."""
        return Draws(self.seed, self.epoch, self.keys[chosen])

    def seeds(self) -> np.ndarray:
        """(n,) uint64 of the randomness of pixels."""
        bits = random_bits(self.seed, self.epoch, self.keys, Operation.AUGMENT + _SEED).astype(np.uint64)
        return (bits[0] << np.uint64(32)) | bits[1]


class _Steps:
    """A program in the making."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._operations: list[np.ndarray] = []
        self._arguments: list[np.ndarray] = []

    def add(
        self, operations: np.ndarray | Op, arguments: np.ndarray | None = None, where: np.ndarray | None = None
    ) -> None:
        """One step: `operations` with (n, up to 8) `arguments`, done only where `where` is set."""
        codes = np.broadcast_to(np.asarray(operations, np.int32), (self._count,))
        self._operations.append(codes if where is None else np.where(where, codes, np.int32(Op.NOTHING)))
        values = np.zeros((self._count, ARGUMENTS), np.float32)
        if arguments is not None:
            values[:, : arguments.shape[1]] = arguments
        self._arguments.append(values)

    def program(self, seeds: np.ndarray, style: Style) -> Program:
        # Steps that nobody takes stay, too: the randomness of pixels is that of the step's number, in any batch.
        return Program(np.stack(self._operations, 1), np.stack(self._arguments, 1), seeds, style)


def plan_program(
    augment: Augment,
    keys: np.ndarray,
    size: int,
    seed: int,
    epoch: int,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    jitter: tuple[np.ndarray, np.ndarray] | None = None,
) -> Program:
    """The program of a batch.

    Args:
        keys: (n,) uint64 of the samples.
        size: side of the views in pixels.
        mean, std: of the view, of values 0 to 1.
        jitter: factors (n, 4) and order (n, 4) of the colour jitter, which then is a part of the program.
    """
    draws, steps = Draws(seed, epoch, keys), _Steps(len(keys))
    place, colour, extent = draws.uniforms(_PLACE), draws.uniforms(_COLOUR), draws.uniforms(_POLICY + 1)
    if augment.transpose:
        swapped = np.tile(np.array([0, 1, 0, 1, 0, 0]), (len(keys), 1))
        steps.add(Op.AFFINE, swapped, place[0] < augment.transpose)
    if augment.parsed is not None:
        _PLANNERS[augment.parsed.kind](augment.parsed, draws, size, steps)
    if jitter is not None:
        _add_jitter(*jitter, steps)
    if augment.grey:
        steps.add(Op.SATURATION, None, colour[0] < augment.grey)
    if augment.blur.prob:
        low, high = augment.blur.sigma
        steps.add(Op.BLUR, (low + extent[0] * (high - low))[:, None], colour[1] < augment.blur.prob)
    if augment.noise.prob:
        low, high = augment.noise.variance
        steps.add(Op.NOISE, np.sqrt(low + extent[1] * (high - low))[:, None], colour[2] < augment.noise.prob)
    if augment.grid_shuffle.prob:
        cells = np.full((len(keys), 1), augment.grid_shuffle.cells)
        steps.add(Op.GRID_SHUFFLE, cells, place[1] < augment.grid_shuffle.prob)
    middle, spread = 255 * np.array(mean), 255 * np.array(std)
    if augment.erasing.prob:
        _add_erasing(augment.erasing, draws, place[2] < augment.erasing.prob, size, middle, spread, steps)
    if augment.dropout.prob:
        _add_dropout(augment.dropout, draws, place[3] < augment.dropout.prob, size, middle, steps)
    style = Style(
        fill=_triple(augment.fill if augment.fill is not None else np.minimum(255, np.rint(middle))),
        bilinear=augment.warp == "bilinear",
        noise_mean=(float(middle[0]), float(middle[1]), float(middle[2])),
        noise_deviation=(float(spread[0]), float(spread[1]), float(spread[2])),
    )
    return steps.program(draws.seeds(), style)


def _triple(values: np.ndarray | tuple[int, ...]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


# --- policies ---------------------------------------------------------------------------------------------------------


def _magnitudes(policy: Policy, base: np.ndarray | float, draws: Draws, number: int) -> np.ndarray:
    """Strengths (n,): noisy ones, or uniform from 0 on where the deviation is infinite."""
    values: np.ndarray | float = base
    if policy.deviation == float("inf"):
        values = draws.uniforms(number)[2] * base
    elif policy.deviation:
        values = base + policy.deviation * draws.normals(number)[0]
    return np.broadcast_to(np.clip(values, 0.0, policy.largest), len(draws))


def _layer(
    policy: Policy,
    names: tuple[str, ...],
    chosen: np.ndarray,
    applied: np.ndarray,
    base: np.ndarray | float,
    draws: Draws,
    number: int,
    size: int,
    steps: _Steps,
) -> None:
    """Add a step: operation ``names[chosen]`` of each sample."""
    _, _, sides, free = draws.uniforms(number)
    level = _magnitudes(policy, base, draws, number + 1)
    sign = np.where(sides > 0.5, -1.0, 1.0)
    operations, arguments = np.zeros(len(draws), np.int32), np.zeros((len(draws), ARGUMENTS), np.float32)
    for index, name in enumerate(names):
        here = np.flatnonzero(applied & (chosen == index))
        if len(here):
            operations[here] = LEVELS[name][0]
            arguments[here] = arguments_of(name, level[here], sign[here], free[here], size)
    steps.add(operations, arguments)


def _choices(policy: Policy, draws: Draws, layers: int, first: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names, (layers, n) chosen ones, and (layers, n) uniforms that are free for the probability."""
    names = tuple(policy.choices)
    weights = np.tile(np.array([policy.choices[name] for name in names]), (len(draws), 1))
    chosen, spare = np.zeros((layers, len(draws)), np.int64), np.zeros((layers, len(draws)))
    for layer in range(layers):
        choice, spare[layer], _, _ = draws.uniforms(first + 2 * layer)
        steps = np.cumsum(weights, 1)
        chosen[layer] = np.minimum((steps <= (choice * steps[:, -1])[:, None]).sum(1), len(names) - 1)
        if not policy.replace:
            weights[np.arange(len(draws)), chosen[layer]] = 0
    return names, chosen, spare


def _rand(policy: Policy, draws: Draws, size: int, steps: _Steps) -> None:
    names, chosen, spare = _choices(policy, draws, policy.layers, _LAYERS)
    for layer in range(policy.layers):
        applied = spare[layer] < policy.prob
        _layer(policy, names, chosen[layer], applied, policy.magnitude, draws, _LAYERS + 2 * layer, size, steps)


def _auto(policy: Policy, draws: Draws, size: int, steps: _Steps) -> None:
    pair = np.floor(draws.uniforms(_POLICY)[0] * len(policy.pairs)).astype(np.int64)
    for layer in range(max(len(layers) for layers in policy.pairs)):
        column = [layers[layer] for layers in policy.pairs]
        names = tuple(dict.fromkeys(entry.name for entry in column))
        chosen = np.array([names.index(entry.name) for entry in column])[pair]
        base = np.array([entry.magnitude for entry in column])[pair]
        prob = np.array([entry.prob for entry in column])[pair]
        number = _LAYERS + 2 * layer
        _layer(policy, names, chosen, draws.uniforms(number)[1] < prob, base, draws, number, size, steps)


def _trivial(policy: Policy, draws: Draws, size: int, steps: _Steps) -> None:
    names, chosen, _ = _choices(policy, draws, 1, _LAYERS)
    bins = np.floor(draws.uniforms(_POLICY)[0] * TRIVIAL_BINS)
    always = np.ones(len(draws), bool)
    _layer(policy, names, chosen[0], always, bins / (TRIVIAL_BINS - 1) * 10, draws, _LAYERS, size, steps)


def _corrupt(policy: Policy, draws: Draws, size: int, steps: _Steps) -> None:
    names, chosen, spare = _choices(policy, draws, policy.layers, _LAYERS)
    for layer in range(policy.layers):
        severity = np.floor(spare[layer] * policy.severity).astype(np.int64)
        operations, arguments = np.zeros(len(draws), np.int32), np.zeros((len(draws), ARGUMENTS), np.float32)
        for index, name in enumerate(names):
            here = np.flatnonzero(chosen[layer] == index)
            if name == "Identity" or not len(here):
                continue
            operation, table = CORRUPTIONS[name]
            operations[here] = operation
            arguments[here, : len(table[0])] = np.array(table, np.float32)[severity[here]]
        steps.add(operations, arguments)


def _augmix(policy: Policy, draws: Draws, size: int, steps: _Steps) -> None:
    """Hendrycks et al., arXiv 1912.02781, as timm does it: chains of one to three operations, added with weights of a
    Dirichlet distribution, and a share of a Beta distribution of that in the result."""
    from scipy.special import betaincinv, gammaincinv

    longest = policy.depth if policy.depth > 0 else 3
    shares = [draws.uniforms(_POLICY + 2 + chain // 4)[chain % 4] for chain in range(policy.width)]
    gammas = np.stack([gammaincinv(policy.alpha, np.clip(share, 1e-12, 1 - 1e-12)) for share in shares])
    weights = gammas / gammas.sum(0)
    share = draws.uniforms(_POLICY)[1]
    names, chosen, spare = _choices(policy, draws, policy.width * longest, _LAYERS)
    steps.add(Op.MIX_BEGIN)
    for chain in range(policy.width):
        # Each chain has its own length, of the free uniform of its first operation.
        length = longest if policy.depth > 0 else 1 + np.floor(spare[chain * longest] * 3)
        for depth in range(longest):
            layer = chain * longest + depth
            number = _LAYERS + 2 * layer
            applied = np.broadcast_to(depth < length, len(draws))
            _layer(policy, names, chosen[layer], applied, policy.magnitude, draws, number, size, steps)
        steps.add(Op.MIX_CHAIN, weights[chain][:, None])
    steps.add(Op.MIX_END, betaincinv(policy.alpha, policy.alpha, share)[:, None])


_PLANNERS = {"rand": _rand, "auto": _auto, "trivial": _trivial, "augmix": _augmix, "corrupt": _corrupt}


# --- colours and places -----------------------------------------------------------------------------------------------


def _add_jitter(factors: np.ndarray, order: np.ndarray, steps: _Steps) -> None:
    for turn in range(4):
        chosen = order[:, turn]
        values = np.take_along_axis(factors, chosen[:, None], 1)
        steps.add(_JITTER_OPS[chosen], values, values[:, 0] != _NEUTRAL[chosen])


def _add_erasing(
    erasing: Erasing, draws: Draws, wanted: np.ndarray, size: int, mean: np.ndarray, std: np.ndarray, steps: _Steps
) -> None:
    low, high = np.log(erasing.aspect)
    for box in range(erasing.count):
        arguments = np.zeros((len(draws), ARGUMENTS))
        arguments[:, 4] = erasing.mode == "pixel"
        colour = mean + (std * draws.normals(_ERASE + 32 * box)[:3].T if erasing.mode == "rand" else 0)
        arguments[:, 5:] = np.clip(colour, 0, 255)
        found, open_ = np.zeros(len(draws), bool), np.flatnonzero(wanted)
        for attempt in range(_ERASE_TRIES):
            if not len(open_):
                break
            draw = draws.some(open_).uniforms(_ERASE + 32 * box + 1 + attempt)
            area = (erasing.area[0] + draw[0] * (erasing.area[1] - erasing.area[0])) * size * size / erasing.count
            aspect = np.exp(low + draw[1] * (high - low))
            tall, wide = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
            fits = (tall < size) & (wide < size)
            top, left = np.floor(draw[2] * (size - tall + 1)), np.floor(draw[3] * (size - wide + 1))
            arguments[open_[fits], :4] = np.stack([top, left, tall, wide], 1)[fits]
            found[open_[fits]] = True
            open_ = open_[~fits]
        steps.add(Op.ERASE, arguments, found)


def _add_dropout(
    dropout: Dropout, draws: Draws, wanted: np.ndarray, size: int, mean: np.ndarray, steps: _Steps
) -> None:
    side = min(dropout.size, size)
    for hole in range(dropout.holes):
        draw = draws.uniforms(_DROPOUT + hole // 2)[2 * (hole % 2) : 2 * (hole % 2) + 2]
        arguments = np.zeros((len(draws), ARGUMENTS))
        arguments[:, :2] = np.floor(draw * (size - side + 1)).T
        arguments[:, 2:4], arguments[:, 5:] = side, mean
        steps.add(Op.ERASE, arguments, wanted)
