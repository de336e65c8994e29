"""Exact match of the whole solution, for tasks whose answer has one spelling."""

from collections.abc import Sequence

from rewards.completions import Completion, graded_texts, reference_text


def exact_reward(
    completions: Sequence[Completion],
    answer: Sequence[object],
    solution_text: Sequence[str] | None = None,
    **columns: object,
) -> list[float | None]:
    """1.0 where the solution is the answer, letter for letter, else 0.0; white space only separates words.

    Args:
        completions: B strings or lists of chat messages (the last assistant message counts).
        answer: B references.
        solution_text: B solution segments; where they are passed, these are graded and `completions` is ignored.
        columns: what else TRL passes; unused.

    Returns:
        B scores; None where the reference is missing or blank.
    """
    texts = graded_texts(completions, answer, solution_text)
    return [_score(text.split(), reference) for text, reference in zip(texts, answer, strict=True)]


def _score(words: list[str], reference: object) -> float | None:
    expected = reference_text(reference).split()
    return float(words == expected) if expected else None
