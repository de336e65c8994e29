r"""Mathematical equality of the last \boxed{} and the reference, decided by math-verify.

Known limits:
- Time: math-verify's limits are signals. They work on the main thread only, where each parse and each comparison gets
  TIMEOUT_S seconds, and they cancel an alarm (SIGALRM) that the caller has set. On another thread nothing bounds the
  time but the length of the answer. No limit bounds memory, and none can interrupt C code: a short `99999999!` may
  hold the process for long. Grade untrusted text at scale in processes that can be killed.
- Numbers: math-verify rounds to 6 decimals, which is absolute (0 equals the gold 10^{-8}), and reads 42 as equal to 42%
  and 4200%. Two plain decimal numbers are compared exactly instead, before math-verify is asked.
- Words: a bare word is a product of its letters, so anagrams are equal; inside \text{} it is a name, without case.
- Sets: the gold 1<x<2 accepts (1,2), but the gold (1,2) refuses 1<x<2; a gold that is an open interval or a point
  (both are written (3,4)) is read by math-verify's guess.
- Forms: any form of equal value is accepted, unsimplified ones too.
- An answer of more than MAX_ANSWER_CHARACTERS is wrong, and a reference that is longer is ungradable. A comparison that
  runs out of time counts as unequal; a reference that does so when it is parsed is ungradable.
"""

import re
import threading
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from rewards.completions import Completion, graded_texts, reference_text

# An int: math-verify hands it to signal.alarm, which refuses a float, and math-verify then parses everything to [].
TIMEOUT_S = 5
MAX_ANSWER_CHARACTERS = 512

_BOX = re.compile(r"\\boxed\s*\{")
_DOLLARS = re.compile(r"\$([^$]*[^$\\])\$", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)


def math_reward(
    completions: Sequence[Completion],
    answer: Sequence[object],
    solution_text: Sequence[str] | None = None,
    **columns: object,
) -> list[float | None]:
    r"""1.0 where the last \boxed{} of the solution equals the answer, 0.0 where it does not or there is none.

    A last box that is never closed is no answer. What a completion says outside its last box counts for nothing. The
    limits are in the module's docstring.

    Args:
        completions: B strings or lists of chat messages (the last assistant message counts).
        answer: B references: LaTeX, a number, or a worked solution whose last box is the answer.
        solution_text: B solution segments; where they are passed, these are graded and `completions` is ignored.
            Without them the whole completion is graded, thinking included.
        columns: what else TRL passes; unused.

    Returns:
        B scores; None, whatever the completion, where math-verify cannot parse the reference.

    Raises:
        RuntimeError: math-verify fails a known sum, so its installation is broken.
    """
    texts = graded_texts(completions, answer, solution_text)
    return [_score(last_boxed(text), _gold(reference)) for text, reference in zip(texts, answer, strict=True)]


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{} of `text` holds, braces matched; None without a box or when the last is not closed."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start, depth, i = boxes[-1].end(), 1, boxes[-1].end()
    while i < len(text):
        if text[i] == "\\":  # an escaped brace, \{ or \}, is printed and groups nothing
            i += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i]
        i += 1
    return None


def _gold(reference: object) -> str | None:
    text = reference_text(reference)
    return _cleaned(last_boxed(text) if _BOX.search(text) else text)


def _score(boxed: str | None, gold: str | None) -> float | None:
    if not gold or not (_is_number(gold) or _parsed_gold(gold)):
        return None
    answer = _cleaned(boxed)
    if not answer:
        return 0.0
    if answer == gold:
        return 1.0
    if _is_number(answer) and _is_number(gold):
        return float(Decimal(answer) == Decimal(gold))
    return float(_verified(gold, answer))


def _cleaned(answer: str | None) -> str | None:
    """Without outer white space, a closing full stop and a pair of dollar signs, which make math-verify fail."""
    if answer is None:
        return None
    answer = answer.strip()
    if not answer.endswith(r"\right."):
        answer = answer.removesuffix(".").rstrip()
    dollars = _DOLLARS.fullmatch(answer)
    return dollars[1].strip() if dollars else answer


def _is_number(answer: str) -> bool:
    return _PLAIN_NUMBER.fullmatch(answer) is not None


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> list:
    return _parsed(gold)


def _verified(gold: str, answer: str) -> bool:
    import math_verify

    parsed = _parsed(answer)
    return bool(parsed) and math_verify.verify(_parsed_gold(gold), parsed, timeout_seconds=_timeout_s())


def _parsed(answer: str) -> list:
    """math-verify's reading of `answer` as LaTeX, one sympy expression; [] when it has none or `answer` is too long."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return []
    _require_working_grader()
    return _parse(answer)


def _parse(answer: str) -> list:
    from math_verify import LatexExtractionConfig, parse

    return parse(
        f"\\boxed{{{answer}}}",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        parsing_timeout=_timeout_s(),
    )


def _timeout_s() -> int | None:
    return TIMEOUT_S if threading.current_thread() is threading.main_thread() else None


@lru_cache(maxsize=1)
def _require_working_grader() -> None:
    """math-verify turns its own errors into [] and False: without this check, a broken one would score 0.0 for ever."""
    import math_verify

    half, quarter = _parse(r"\frac{1}{2}"), _parse(r"\frac{1}{4}")
    works = half and quarter and math_verify.verify(half, _parse("0.5"), timeout_seconds=_timeout_s())
    if not works or math_verify.verify(half, quarter, timeout_seconds=_timeout_s()):
        raise RuntimeError(
            r"math-verify does not find \frac{1}{2} equal to 0.5 and unequal to \frac{1}{4}, so its installation is "
            "broken: reinstall math-verify and latex2sympy2_extended."
        )
