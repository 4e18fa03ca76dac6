"""From noisy judgments of pairs to one ranking: preference graphs are merged, made free of cycles, and read
off.

    ranking = rank_by_preferences(6, [votes_of_one_judge, votes_of_another])       # the best first

1. Every judge's votes are a graph: nodes are responses, an arc a -> b says that a is better, its weight how
   much so.
2. Graphs are merged by adding their weights; opposite arcs cancel.
3. Cycles are opposite opinions that cannot all hold. The lightest set of arcs without which no cycle is left
   is taken out.
4. Responses are ranked by how many others they are, directly or not, better than.

Source: PGED, "preference graph ensemble and denoise" (arXiv 2410.12869), with the vertex sequence of Eades,
Lin and Smyth (1993) for step 3. Finding the lightest set is hard in general; here groups of few responses are
solved exactly, larger ones by the sequence, of whose removed arcs those that close no cycle are put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy  # its parts are imported when they are used

EXACT = 10
"""Responses of one cycle-ridden group up to which the lightest set is found; it takes 2^n steps."""


def votes_to_graph(num_responses: int, votes: Iterable[tuple[int, int, float]]) -> np.ndarray:
    """(N, N) weights of one judge's votes: [a, b] how much a is better than b, never below 0.

    Args:
        num_responses: N.
        votes: (better, worse, strength) triples, strength above 0, such as 1 per judgment; opposite votes
            cancel.

    Raises:
        ValueError: a vote is about a response that does not exist, about one response only, or has no
            strength.
    """
    weights = np.zeros((num_responses, num_responses))
    for better, worse, strength in votes:
        exist = 0 <= better < num_responses and 0 <= worse < num_responses
        if not exist or better == worse or not 0 < strength < np.inf:
            raise ValueError(
                f"expected a vote between two of {num_responses} responses, counted from 0, with a strength "
                "above 0, "
                f"got {(better, worse, strength)}"
            )
        weights[better, worse] += strength
    return _net(weights)


def merge_graphs(graphs: Sequence[np.ndarray]) -> np.ndarray:
    """(N, N) the sum of several graphs; what opposite arcs have in common cancels.

    Args:
        graphs: (N, N) each, weights of 0 or more.

    Raises:
        ValueError: no graph, other shapes, weights that are negative, infinite or none.
    """
    if not graphs:
        raise ValueError("expected one or more preference graphs, got none")
    arrays = [np.asarray(graph, dtype=np.float64) for graph in graphs]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or arrays[0].ndim != 2 or arrays[0].shape[0] != arrays[0].shape[1]:
        raise ValueError(f"expected square graphs over the same responses, got shapes {sorted(shapes)}")
    for array in arrays:
        if not np.isfinite(array).all() or (array < 0).any() or np.diag(array).any():
            raise ValueError("expected finite weights of 0 or more, and none from a response to itself")
    return _net(np.sum(arrays, axis=0))


def without_cycles(weights: np.ndarray, *, exact: int = EXACT) -> np.ndarray:
    """(N, N) the graph without a light set of arcs that held all its cycles.

    Args:
        weights: (N, N) as `merge_graphs` gives it.
        exact: groups of responses on common cycles up to this size lose the lightest such set; larger ones a
            light one, none of whose arcs could be kept. 0 is the published heuristic for all.
    """
    kept = np.array(weights, dtype=np.float64)
    _, group_of = scipy.sparse.csgraph.connected_components(kept > 0, connection="strong")
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        if len(members) < 3:
            continue  # opposite arcs have cancelled, so two responses make no cycle
        within = kept[np.ix_(members, members)]
        sequence = _best_sequence(within) if len(members) <= exact else _greedy_sequence(within)
        kept[np.ix_(members, members)] = _along(within, sequence)
    return kept


def rank_acyclic(weights: np.ndarray) -> list[int]:
    """Responses of a graph without cycles, the best first: by how many others they reach, equal ones by their
    number.

    Args:
        weights: (N, N).

    Raises:
        ValueError: it has a cycle; see `without_cycles`.
    """
    reaches = _reachable(weights > 0)
    if np.diag(reaches).any():
        raise ValueError("expected a graph without cycles, got one with; call without_cycles first")
    return sorted(range(len(weights)), key=lambda node: (-int(reaches[node].sum()), node))


def rank_by_preferences(
    num_responses: int, judges: Sequence[Iterable[tuple[int, int, float]]], *, exact: int = EXACT
) -> list[int]:
    """Responses ranked by the votes of several judges, the best first.

    Args:
        num_responses: N.
        judges: for each, (better, worse, strength) triples; see `votes_to_graph`.
        exact: see `without_cycles`.
    """
    graphs = [votes_to_graph(num_responses, votes) for votes in judges]
    return rank_acyclic(without_cycles(merge_graphs(graphs), exact=exact))


def _net(weights: np.ndarray) -> np.ndarray:
    return np.maximum(weights - weights.T, 0)


def _greedy_sequence(weights: np.ndarray) -> list[int]:
    """Responses in an order with little weight against it.

    Those that nobody is better than go to the front, those that are better than nobody to the back, and else
    the one with the largest surplus of outgoing over incoming weight goes to the front (Eades, Lin and Smyth
    1993).
    """
    left = list(range(len(weights)))
    front: list[int] = []
    back: list[int] = []
    while left:
        within = weights[np.ix_(left, left)]
        gives = within.sum(axis=1)
        takes = within.sum(axis=0)
        better_than_nobody = np.flatnonzero(gives == 0)
        worse_than_nobody = np.flatnonzero(takes == 0)
        if len(better_than_nobody):
            back.append(left.pop(int(better_than_nobody[0])))
        elif len(worse_than_nobody):
            front.append(left.pop(int(worse_than_nobody[0])))
        else:
            front.append(left.pop(int(np.argmax(gives - takes))))
    return front + back[::-1]


def _best_sequence(weights: np.ndarray) -> list[int]:
    """The order with the least weight against it, by dynamic programming over sets of responses that stand in
    front.
    """
    n = len(weights)
    cost = np.full(1 << n, np.inf)
    last = np.zeros(1 << n, dtype=np.int64)
    cost[0] = 0
    members = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    # What it costs to put a response behind a set: its arcs to members of the set, which then point
    # backwards.
    against = members @ weights.T
    for front in range(1, 1 << n):
        for node in np.flatnonzero(members[front]):
            before = front ^ (1 << int(node))
            total = cost[before] + against[before, node]
            if total < cost[front]:
                cost[front] = total
                last[front] = node
    sequence = []
    front = (1 << n) - 1
    while front:
        sequence.append(int(last[front]))
        front ^= 1 << sequence[-1]
    return sequence[::-1]


def _along(weights: np.ndarray, sequence: Sequence[int]) -> np.ndarray:
    """The arcs that point along a sequence, and those against it that close no cycle, heavy ones first."""
    place = np.argsort(np.asarray(sequence))
    kept = np.where(place[:, None] < place[None, :], weights, 0)
    against = [(int(a), int(b)) for a, b in np.argwhere((weights > 0) & (kept == 0))]
    for better, worse in sorted(against, key=lambda arc: -weights[arc]):
        if not _reachable(kept > 0)[worse, better]:
            kept[better, worse] = weights[better, worse]
    return kept


def _reachable(arcs: np.ndarray) -> np.ndarray:
    """(N, N) bool: which node is reached from which, over one arc or more (Warshall 1962)."""
    reached = np.array(arcs, dtype=bool)
    for middle in range(len(reached)):
        reached |= reached[:, middle, None] & reached[None, middle, :]
    return reached
