"""What a plan's column sums are to keep to: intervals, equal counts, wished counts at a price, upper bounds alone."""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import ScoresError


@dataclass(frozen=True)
class Marginals:
    """Constraints of the column sums c.

    Attributes:
        lower, upper: (C,) float64 with 0 <= lower <= upper. A class whose upper bound is 0 takes no sample; where both
            are equal everywhere the counts are given; a lower bound of 0 leaves upper bounds alone.
        relax: strength rho in nats: ``lower == upper`` are wished for, and ``rho * KL(c | upper)`` is the price of
            missing them (large: they are met; near 0: they are ignored). None: the bounds hold.
        max_shift: what a class's potential may change its scores by, in nats, up and down; beyond it a bound is missed
            rather than met, at a price of `max_shift` a sample (relaxation by total variation, Chizat et al., arXiv
            1607.05816). None: no limit.
    """

    lower: np.ndarray
    upper: np.ndarray
    relax: float | None = None
    max_shift: float | None = None

    @property
    def equality(self) -> bool:
        """Whether each class has one count, to be met or wished for."""
        return np.array_equal(self.lower, self.upper)

    @property
    def open(self) -> np.ndarray:
        """(C,) bool: classes that may take samples."""
        return self.upper > 0

    def check(self, samples: int) -> None:
        """Raise a ScoresError if no plan for `samples` rows can keep the bounds."""
        if not (np.isfinite(self.lower).all() and np.isfinite(self.upper).all() and (self.lower >= 0).all()):
            raise ScoresError("bounds of the class counts must be numbers of at least 0")
        if (self.lower > self.upper).any():
            column = int(np.flatnonzero(self.lower > self.upper)[0])
            raise ScoresError(
                f"class {column} is to get at least {self.lower[column]:g} and at most {self.upper[column]:g} samples"
            )
        if self.relax is not None and not (self.equality and self.relax > 0):
            raise ScoresError(f"a relaxation needs one wished count a class and a strength above 0, not {self.relax}")
        if self.max_shift is not None and not self.max_shift > 0:
            raise ScoresError(f"the largest shift must be above 0, not {self.max_shift}")
        slack = 1e-9 * samples
        if self.lower.sum() > samples + slack:
            raise ScoresError(f"the lower bounds ask for {self.lower.sum():g} samples, there are {samples}; lower them")
        if self.upper.sum() < samples - slack:
            raise ScoresError(f"the upper bounds leave room for {self.upper.sum():g} of {samples} samples; raise them")

    def whole(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (C,) int64 that whole counts can keep: rounded inwards, or given counts rounded to sum `samples`.

        Raises:
            ScoresError: no whole counts keep the bounds.
        """
        if self.equality:
            counts = np.floor(self.lower).astype(np.int64)
            # Largest remainders first; the stable sort makes ties go to the first classes.
            order = np.argsort(-(self.lower - counts), kind="stable")
            counts[order[: samples - int(counts.sum())]] += 1
            return counts, counts
        lower = np.ceil(self.lower - 1e-9).astype(np.int64)
        upper = np.minimum(np.floor(self.upper + 1e-9).astype(np.int64), samples)
        if (lower > upper).any() or lower.sum() > samples or upper.sum() < samples:
            raise ScoresError(
                "no whole numbers of samples lie within the bounds; widen them (--lower, --upper) or use --equality"
            )
        return lower, upper


def bounds(
    prior: np.ndarray,
    samples: int,
    lower: str,
    upper: str,
    equality: bool = False,
    *,
    relax: float | None = None,
    max_shift: float | None = None,
) -> Marginals:
    """Constraints of the class counts.

    Args:
        prior: (C,) share of each class.
        samples: N.
        lower, upper: ``0.9x`` is a factor of ``prior * N``, ``12`` a count for each class.
        equality: exactly ``prior * N`` instead.
        relax: ``prior * N`` is wished for with this strength instead.
        max_shift: limit of the potentials, in nats.

    Raises:
        ScoresError: malformed, or no plan can keep them.
    """
    expected = prior * samples
    if equality or relax is not None:
        marginals = Marginals(expected, expected, relax, max_shift)
    else:
        marginals = Marginals(_bound(lower, expected), _bound(upper, expected), None, max_shift)
    marginals.check(samples)
    return marginals


def _bound(text: str, expected: np.ndarray) -> np.ndarray:
    is_factor = text.endswith("x")
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = -1.0
    if not (np.isfinite(value) and value >= 0):
        raise ScoresError(f"a bound is a factor such as 0.9x, or a count such as 12, not {text!r}")
    # A class of prior 0 stays empty whatever count the others are given.
    return expected * value if is_factor else np.where(expected > 0, value, 0.0)
