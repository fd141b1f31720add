"""Anderson acceleration of a fixed-point iteration (Walker & Ni, SIAM J. Numer. Anal. 49, 2011)."""

import numpy as np

DEPTH = 5
# Of the trace of the normal matrix: keeps nearly parallel steps from giving wild weights.
REGULARISATION = 1e-8


class Anderson:
    """Combines the last steps of an iteration ``x -> g(x)`` so that their linear part is solved for."""

    def __init__(self) -> None:
        self._points: list[np.ndarray] = []
        self._steps: list[np.ndarray] = []

    def forget(self) -> None:
        """Begin anew, with a plain step."""
        self._points, self._steps = [], []

    def next(self, point: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The point to go on from, instead of `image`, which the iteration gave at `point`; (n,) float64 each."""
        step = image - point
        self._points = [*self._points[-DEPTH:], point]
        self._steps = [*self._steps[-DEPTH:], step]
        if len(self._points) == 1:
            return image
        moves, changes = np.diff(self._points, axis=0), np.diff(self._steps, axis=0)
        # Not by BLAS, whose bits depend on its number of threads.
        normal = np.einsum("ik,jk->ij", changes, changes)
        normal += REGULARISATION * np.trace(normal) * np.eye(len(normal))
        try:
            weights = np.linalg.solve(normal, np.einsum("ik,k->i", changes, step))
        except np.linalg.LinAlgError:  # all steps are alike
            return image
        return image - np.einsum("i,ik->k", weights, moves + changes)
