"""The labels of the largest summed score within whole bounds of the counts: a min-cost flow from Sinkhorn's prices.

Samples move along the edges of a graph of classes: from j to l goes the sample of j that loses least. Each class passes
between its bounds on to a common node. At first every sample is in its best class at the prices, which most of them
keep; each shortest path then takes a sample's worth of excess to where one is wanting (successive shortest paths with
potentials; Ahuja, Magnanti & Orlin, Network Flows, 1993, 9.7). Edges are the best candidates of each sample; in the end
every class of every sample is priced, those that would be better become edges, and the search goes on. So the labels
are the best of all, and the last prices prove it: no sample would be better off in any other class.
"""

from dataclasses import dataclass

import numpy as np

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.assign import Assigned
from fasttrain.scores.redistribution.flow_edges import Candidates, Edges
from fasttrain.scores.redistribution.passes import Passes
from fasttrain.scores.redistribution.sharpening import sharpened

# Entries of a row block in float64.
BLOCK_ENTRIES = 1 << 18
# Scores of -inf count as so many nats below the least finite one: taken only where the bounds leave nothing else.
BELOW_LEAST = 50.0


@dataclass(frozen=True)
class ExactLabels:
    """What `round_exact` found.

    Attributes:
        label: (N,) int32.
        gap: summed nats by which samples would be better off in other classes at the final prices: no other labels
            within the bounds can have a summed score that is larger by more. 0 up to rounding.
        moves: paths that were walked.
        rounds: how often all classes were priced.
    """

    label: np.ndarray
    gap: float
    moves: int
    rounds: int


def round_exact(
    passes: Passes,
    potential: np.ndarray,
    found: Assigned,
    lower: np.ndarray,
    upper: np.ndarray,
    eps: float | None = None,
) -> ExactLabels:
    """Labels (N,) that maximise the summed score within the bounds. The prices only say where the search begins.

    Args:
        passes: over the scores S of all N rows.
        potential: (C,) nats added to the scores; -inf for closed classes, whose upper bound is 0.
        found: the assignment under this potential, with `top_classes`.
        lower, upper: (C,) int64 bounds that whole counts can keep (`Marginals.whole`).
        eps: temperature of the plan that the potential is from; given, the prices are sharpened first.
    """
    candidates = _first_candidates(passes, potential, found)
    if eps is not None:
        potential = sharpened(*candidates, potential, eps, lower, upper)
    flow = _Flow(passes, potential, candidates, lower, upper)
    moves = flow.settle()
    rounds = 1
    while not flow.price_all():
        moves += flow.settle()
        rounds += 1
    return ExactLabels(flow.edges.label.astype(np.int32), flow.gap, moves, rounds)


def _first_candidates(passes: Passes, potential: np.ndarray, found: Assigned) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) best classes of each sample, and their float64 scores; -inf where one is closed or impossible."""
    assert found.top_classes is not None
    values = np.empty(found.top_classes.shape)
    for part in _blocks(passes):
        values[part] = np.take_along_axis(passes.values(part), found.top_classes[part].astype(np.int64), 1)
    values[~np.isfinite(potential[found.top_classes])] = -np.inf
    return found.top_classes, values


def _blocks(passes: Passes) -> list[slice]:
    step = max(1, BLOCK_ENTRIES // passes.columns)
    return [slice(start, start + step) for start in range(0, passes.samples, step)]


@dataclass
class _Search:
    """A search for shortest paths from one node.

    Attributes:
        distance: (C + 1,) of the nodes that were reached, in nats.
        settled: those whose distance is final, in order.
        parent, via: (C + 1,) the node before, and the sample that moves (-1: counts alone do).
    """

    distance: np.ndarray
    settled: list[int]
    parent: np.ndarray
    via: np.ndarray

    def relax(self, node: int, ends: np.ndarray, distances: np.ndarray, rows: np.ndarray | int) -> np.ndarray:
        """Note shorter ways over `node`; which of them are."""
        shorter = distances < self.distance[ends]
        reached = ends[shorter]
        self.distance[reached] = distances[shorter]
        self.parent[reached] = node
        self.via[reached] = rows if isinstance(rows, int) else rows[shorter]
        return reached


class _Flow:
    """Labels, prices and what is too much or wanting at each class; node C is the common one."""

    def __init__(
        self,
        passes: Passes,
        potential: np.ndarray,
        candidates: tuple[np.ndarray, np.ndarray],
        lower: np.ndarray,
        upper: np.ndarray,
    ) -> None:
        self._passes, self._lower, self._upper = passes, lower, upper
        self._sink = len(upper)
        self._open = np.flatnonzero(np.isfinite(potential) & (upper > 0))
        self._price = np.append(np.where(upper > 0, potential, -np.inf), 0.0)
        self._least: float | None = None
        classes, values = candidates
        best = (values + self._price[classes]).argmax(1)[:, None]
        label = np.take_along_axis(classes, best, 1)[:, 0].astype(np.int64)
        self.edges = Edges(label, np.take_along_axis(values, best, 1)[:, 0], Candidates(classes, values))
        self.gap = np.inf
        counts = np.bincount(label, minlength=self._sink)
        # What a class passes on: as its price says; at a price of 0, what it has.
        through = np.where(potential > 0, lower, np.where(potential < 0, upper, np.clip(counts, lower, upper)))
        self._through = through
        self._excess = np.append(counts - through, through.sum() - len(label))

    # --- paths ------------------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Bring every excess to where something is wanting; the number of paths."""
        moves = 0
        while len(sources := np.flatnonzero(self._excess > 0)):
            source = int(sources[0])
            while self._excess[source] > 0:
                search, end = self._search(source)
                if end is None:
                    self._widen_classes(search.settled)
                    continue
                self._reprice(search, end)
                self._walk(search, source, end)
                moves += 1
        return moves

    def _search(self, source: int) -> tuple[_Search, int | None]:
        """Dijkstra's algorithm until a node where something is wanting; None if none can be reached."""
        nodes = self._sink + 1
        search = _Search(np.full(nodes, np.inf), [], np.full(nodes, -1), np.full(nodes, -1))
        search.distance[source] = 0.0
        ahead = search.distance.copy()  # inf where settled
        while True:
            node = int(ahead.argmin())
            far = float(ahead[node])
            if far == np.inf:
                return search, None
            if self._excess[node] < 0:
                return search, node
            search.settled.append(node)
            for reached in self._relaxed(search, node, far):
                ahead[reached] = search.distance[reached]
            ahead[node] = np.inf

    def _relaxed(self, search: _Search, node: int, far: float) -> list[np.ndarray]:
        price = self._price
        if node == self._sink:
            ends = np.flatnonzero(self._through > self._lower)
            return [search.relax(node, ends, far + np.maximum(price[node] - price[ends], 0.0), -1)]
        reached = []
        for ends, losses, rows in self.edges.out_of(node):
            # Not below 0 but by rounding.
            distances = far + np.maximum(losses + (price[node] - price[ends]), 0.0)
            reached.append(search.relax(node, ends, distances, rows))
        if self._through[node] < self._upper[node]:
            distance = np.array([far + max(price[node] - price[self._sink], 0.0)])
            reached.append(search.relax(node, np.array([self._sink]), distance, -1))
        return reached

    def _reprice(self, search: _Search, end: int) -> None:
        """Lower the prices of all that is nearer than the end, so that the path there costs nothing."""
        near = np.array(search.settled, np.int64)
        self._price[near] += search.distance[near] - search.distance[end]

    def _walk(self, search: _Search, source: int, end: int) -> None:
        """Move along the path as much as it takes: one sample, or where counts alone change, several."""
        path, node = [], end
        while node != source:
            path.append((int(search.parent[node]), node, int(search.via[node])))
            node = path[-1][0]
        amount = min(int(self._excess[source]), -int(self._excess[end]))
        for before, after, row in path:
            if row >= 0:
                amount = 1
            elif after == self._sink:
                amount = min(amount, int(self._upper[before] - self._through[before]))
            else:
                amount = min(amount, int(self._through[after] - self._lower[after]))
        for before, after, row in path:
            if row >= 0:
                self.edges.move(row, after)
            elif after == self._sink:
                self._through[before] += amount
            else:
                self._through[after] -= amount
        self._excess[source] -= amount
        self._excess[end] += amount

    # --- more candidates --------------------------------------------------------------------------------------------

    def price_all(self) -> bool:
        """Compare each label with all classes at the prices; True if the labels are the best of all.

        Where a class that is no candidate yet would be better, it becomes one.
        """
        self.gap, best_already = 0.0, True
        prices = self._price[:-1] - self._price[-1]
        for part in _blocks(self._passes):
            priced = self._passes.values(part) + prices
            best = priced.argmax(1)
            lead = np.take_along_axis(priced, best[:, None], 1)[:, 0]
            lead -= self.edges.own[part] + prices[self.edges.label[part]]
            self.gap += float(np.maximum(lead, 0.0).sum())
            for offset in np.flatnonzero(lead > 0).tolist():
                row = part.start + offset
                if best[offset] not in self.edges.candidates.of(row)[0]:  # else it is ahead by rounding alone
                    best_already = False
                    self._widen(row)
        return best_already

    def _widen_classes(self, classes: list[int]) -> None:
        """Give the samples of classes more candidates, where these lead to no class that wants any."""
        rows = np.flatnonzero(np.isin(self.edges.label, classes))
        if not sum(self._widen(row) for row in rows.tolist()):
            raise ScoresError("no labels keep the bounds; widen them (--lower, --upper)")  # whole bounds exclude it

    def _widen(self, row: int) -> bool:
        """Give a sample twice as many candidates, the best at the prices; whether it had not all of them already."""
        known, known_values = self.edges.candidates.of(row)
        if len(known) == len(self._open):
            return False
        scores = self._passes.values(np.array([row]))[0]
        count = 2 * max(len(known), 1)
        if count < len(self._open):
            priced = scores[self._open] + self._price[self._open]
            best = self._open[np.argpartition(-priced, count)[:count]]
            best = best[np.isfinite(scores[best])]
        else:
            best = self._open
        if np.isin(best, known).all():  # no other class has a score at all
            best = self._open
        added = np.setdiff1d(best, known)
        values = scores[added]
        if not np.isfinite(values).all():
            values = np.where(np.isfinite(values), values, self._below_least())
        classes, values = np.append(known, added), np.append(known_values, values)
        self.edges.widen(row, classes, values)
        priced = values + self._price[classes]
        label, own = int(self.edges.label[row]), self.edges.own[row]
        better = int(priced.argmax())
        if priced[better] > own + self._price[label]:
            self.edges.move(row, int(classes[better]))
            self._excess[label] -= 1
            self._excess[classes[better]] += 1
        return True

    def _below_least(self) -> float:
        if self._least is None:
            least = np.inf
            for part in _blocks(self._passes):
                values = self._passes.values(part)
                least = min(least, float(values[np.isfinite(values)].min()))
            self._least = least - BELOW_LEAST
        return self._least
