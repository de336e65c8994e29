"""Paths in a directed graph: which of the starts leads to the goal, and the ways to search for it.

The problem `c>d a>b b>x d>y goal y from 1>a 2>c` asks which of the numbered starts leads to the node y. Searching goes
depth first from one start after the other, so concise thinking is `1>a a>b b>x dead 2>c c>d d>y found`, and the
solution is `ans 2`. Verbose thinking writes checks behind the edges (`wait check a>b ok .`), and searches again from
the beginning. Every style has the same core. A search that is cut has ruled starts out: it is worth something to who
answers.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from elastic.nano.task import COMMON_WORDS, ColdStart, Task

STARTS = 5
DEPTHS = range(2, 7)
# As many as the deepest graph without side edges has.
NODES = string.ascii_letters[: STARTS * (DEPTHS[-1] + 1)]
SIDE_EDGE_RATE = 0.2
# A path that leads elsewhere is shorter than the depth by at most this.
MOST_SHORTER = 2
# Share of the guesses after a cut that name any start, rather than the one that is being tried.
ANY_START_RATE = 0.5
WORDS = ("goal", "from", "dead", "found")


@dataclass(frozen=True, slots=True)
class Problem:
    """A forest, its edges in the order of the text; exactly one of the starts, each a root, leads to the goal."""

    edges: tuple[tuple[str, str], ...]
    goal: str
    starts: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join([*map(_word, self.edges), "goal", self.goal, "from", *map(_word, self.numbered_starts)])

    @property
    def numbered_starts(self) -> list[tuple[str, str]]:
        """Each start as an edge from its number, from `1` on."""
        return [(str(number), start) for number, start in enumerate(self.starts, start=1)]

    @property
    def answer(self) -> str:
        """The whole solution text, such as `ans 2`."""
        parents = {child: parent for parent, child in self.edges}
        node = self.goal
        while node in parents:
            node = parents[node]
        return f"ans {self.starts.index(node) + 1}"

    def edges_from(self, node: str) -> list[tuple[str, str]]:
        return [edge for edge in self.edges if edge[0] == node]


@dataclass(frozen=True, slots=True)
class Search:
    """How a search is written down.

    Attributes:
        check_weights: weight of 0, 1, 2, ... checks behind each edge.
        repeat_weights: weight of 0, 1, 2, ... further searches from the beginning.
        elimination_rate: share of the searches that do not try the last start when all others are ruled out.
        most_tokens: no chain is longer than this; longer draws are drawn again.
    """

    check_weights: tuple[float, ...] = (0.4, 0.35, 0.2, 0.05)
    repeat_weights: tuple[float, ...] = (0.85, 0.15)
    elimination_rate: float = 0.2
    most_tokens: int = 256

    def write(self, problem: Problem, rng: random.Random) -> str:
        """One chain of thought for `problem`, without markers."""
        while True:
            (repeats,) = rng.choices(range(len(self.repeat_weights)), self.repeat_weights)
            chain = " again ".join(" ".join(self._search(problem, rng)) for _ in range(repeats + 1))
            if chain.count(" ") < self.most_tokens:
                return chain

    def _search(self, problem: Problem, rng: random.Random) -> Iterator[str]:
        for edge in problem.numbered_starts:
            if edge[1] == problem.starts[-1] and rng.random() < self.elimination_rate:
                return
            if (yield from self._follow(edge, problem, rng)):
                return

    def _follow(self, edge, problem, rng):
        """Writes an edge and the search behind it; returns whether the goal was found."""
        (checks,) = rng.choices(range(len(self.check_weights)), self.check_weights)
        yield _word(edge) + f" wait check {_word(edge)} ok ." * checks
        return (yield from self._search_from(edge[1], problem, rng))

    def _search_from(self, node, problem, rng):
        """Writes the search below `node`; returns whether the goal was found."""
        if node == problem.goal:
            yield "found"
            return True
        edges = problem.edges_from(node)
        if not edges:
            yield "dead"
        for edge in rng.sample(edges, len(edges)):
            if (yield from self._follow(edge, problem, rng)):
                return True
        return False


CONCISE = Search(check_weights=(1,), repeat_weights=(1,))
VERBOSE = Search()


def draw(rng: random.Random, difficulty: int) -> Problem:
    """A problem whose goal is `difficulty` edges from its start; the other starts lead to dead ends."""
    names = iter(rng.sample(NODES, len(NODES)))
    spare = len(NODES) - STARTS * (difficulty + 1)
    right = rng.randrange(STARTS)
    edges, starts, ends = [], [], []
    for start in range(STARTS):
        shorter = 0 if start == right else rng.randint(0, min(MOST_SHORTER, difficulty - 1))
        path = [next(names) for _ in range(difficulty + 1 - shorter)]
        edges += pairwise(path)
        for node in path[1:-1]:
            if spare and rng.random() < SIDE_EDGE_RATE:
                edges.append((node, next(names)))
                spare -= 1
        starts.append(path[0])
        ends.append(path[-1])
    rng.shuffle(edges)
    return Problem(tuple(edges), ends[right], tuple(starts))


def guess(problem: Problem, chain: Sequence[str], rng: random.Random) -> str:
    """A careless guess: the start that is being tried, or any."""
    tried = [word[0] for word in chain if word[0].isdigit()]
    if not tried or rng.random() < ANY_START_RATE:
        return f"ans {rng.randint(1, len(problem.starts))}"
    return f"ans {tried[-1]}"


def _word(edge: tuple[str, str]) -> str:
    return ">".join(edge)


_PARENTS = (*NODES, *map(str, range(1, STARTS + 1)))
_EDGES = {_word((parent, child)): (f"{parent}>", child) for parent in _PARENTS for child in NODES}

PATHS = Task(
    words=(*COMMON_WORDS, *WORDS, *NODES, *_EDGES),
    compounds=_EDGES,
    difficulties=DEPTHS,
    difficulty=5,
    draw=draw,
    draw_for_training=draw,
    concise=CONCISE,
    verbose=VERBOSE,
    guess=guess,
    learned_loss=0.2,
    cut_rate=0.1,
    architecture={"hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 3, "num_attention_heads": 4},
    cold_start=ColdStart(cold_start_steps=1500, most_concise_steps=500, batch_tokens=1024, learning_rate=2e-3),
)
