"""Paths in a directed graph: which of the starts leads to the goal, and the ways to search for it.

The problem `c>d a>b b>x d>y goal y from 1>a 2>c` asks which of the numbered starts leads to the node y. Searching
follows one start after the other to its end, so concise thinking is `1 1>a a>b b>x dead 2 2>c c>d d>y found`, and the
solution is `ans 2`. Verbose thinking writes checks behind the edges (`wait check a>b ok .`), and searches again from
the beginning. Every style has the same core. A search that is cut has ruled starts out: it is worth something to who
answers. No node has two edges: to go back and take the other one is not learned within the cold start.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from elastic.nano.task import COMMON_WORDS, ColdStart, Task

STARTS = 6
DEPTHS = range(2, 6)
NODES = string.ascii_letters[: STARTS * (DEPTHS[-1] + 1)]
# A path that leads elsewhere is shorter than the depth by at most this.
MOST_SHORTER = 2
# Share of the guesses after a cut that name any start, rather than the one that is being tried.
ANY_START_RATE = 0.5
WORDS = ("goal", "from", "dead", "found")


@dataclass(frozen=True, slots=True)
class Problem:
    """Disjoint paths, their edges in the order of the text; the goal is the end of the path from one of the starts."""

    edges: tuple[tuple[str, str], ...]
    goal: str
    starts: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join([*map(">".join, self.edges), "goal", self.goal, "from", *map(">".join, self.numbered_starts)])

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
        following = dict(problem.edges)
        for number, start in problem.numbered_starts:
            if start == problem.starts[-1] and rng.random() < self.elimination_rate:
                return
            yield number
            yield self._checked(number, start, rng)
            node = start
            while node in following:
                yield self._checked(node, following[node], rng)
                node = following[node]
            if node == problem.goal:
                yield "found"
                return
            yield "dead"

    def _checked(self, parent: str, child: str, rng: random.Random) -> str:
        (checks,) = rng.choices(range(len(self.check_weights)), self.check_weights)
        edge = f"{parent}>{child}"
        return edge + f" wait check {edge} ok ." * checks


CONCISE = Search(check_weights=(1,), repeat_weights=(1,))
VERBOSE = Search()


def draw(rng: random.Random, difficulty: int) -> Problem:
    """A problem whose goal is `difficulty` edges from its start; the other starts lead to dead ends."""
    count = STARTS * (difficulty + 1)
    names = iter(rng.sample(NODES[:count], count))
    right = rng.randrange(STARTS)
    paths = []
    for start in range(STARTS):
        shorter = 0 if start == right else rng.randint(0, min(MOST_SHORTER, difficulty - 1))
        paths.append([next(names) for _ in range(difficulty + 1 - shorter)])
    edges = [edge for path in paths for edge in pairwise(path)]
    rng.shuffle(edges)
    return Problem(tuple(edges), paths[right][-1], tuple(path[0] for path in paths))


def guess(problem: Problem, chain: Sequence[str], rng: random.Random) -> str:
    """A careless guess: the start that is being tried, or any."""
    tried = [word[0] for word in chain if word[0].isdigit()]
    if not tried or rng.random() < ANY_START_RATE:
        return f"ans {rng.randint(1, len(problem.starts))}"
    return f"ans {tried[-1]}"


_PARENTS = (*NODES, *map(str, range(1, STARTS + 1)))
_EDGES = {f"{parent}>{child}": (f"{parent}>", child) for parent in _PARENTS for child in NODES}

PATHS = Task(
    words=(*COMMON_WORDS, *WORDS, *NODES, *_EDGES),
    compounds=_EDGES,
    difficulties=DEPTHS,
    difficulty=4,
    draw=draw,
    draw_for_training=draw,
    concise=CONCISE,
    verbose=VERBOSE,
    guess=guess,
    learned_loss=0.05,
    cut_rate=0.1,
    architecture={"hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 3, "num_attention_heads": 4},
    cold_start=ColdStart(cold_start_steps=4500, most_concise_steps=700, batch_tokens=768, learning_rate=2e-3),
)
