"""The slow, obvious way to make a rollout, for tests to compare with: no cache, no batch, one full forward a token.

It reads the rules of a rollout anew from their text; it shares no code with elastic.rollout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from elastic.budget import Budget, ReasoningTokens

Choose = Callable[[list[int]], int]

# A vocabulary of 24 ids: 0 pads, 1 and 2 end the text, 3 opens thinking, 4 5 closes it, 6 wraps up, 7.. are words.
VOCABULARY = 24
TOKENS = ReasoningTokens(start=(3,), end=(4, 5), bridge=(6, 4, 5), eos=frozenset({1, 2}), opened=((3,),))


def reference_rollout(
    choose: Choose, prompt: Sequence[int], budget: Budget, tokens: ReasoningTokens, context: int | None = None
) -> dict:
    """The segments and reasons of one rollout whose next token after any ids is `choose(ids)`."""
    t, s, total = (math.inf if bound == -1 else bound for bound in (budget.thinking, budget.solution, budget.total))
    context = math.inf if context is None else context
    ids, thinking, solution, thought = list(prompt), [], [], 0
    if not any(ids[-len(opening) :] == list(opening) for opening in tokens.opened):
        ids += tokens.start

    reason = None
    while reason is None:
        if thought == t:
            reason = "budget"
        elif thought == total or len(ids) == context:
            reason = "length"
        else:
            if tokens.reminders and t < math.inf and thought and thought % tokens.reminders.every == 0:
                thinking += tokens.reminders.ids_of(t - thought)
                ids += tokens.reminders.ids_of(t - thought)
            thinking.append(choose(ids))
            ids.append(thinking[-1])
            thought += 1
            if thinking[-1] in tokens.eos:
                reason = "eos"
            elif thinking[-len(tokens.end) :] == list(tokens.end):
                reason = "natural"

    bridge = list(tokens.bridge) if reason == "budget" else []
    ids += bridge
    finish = {"eos": "stop", "length": "length"}.get(reason)
    while finish is None:
        if len(solution) == s or thought + len(solution) == total or len(ids) == context:
            finish = "length"
        else:
            solution.append(choose(ids))
            ids.append(solution[-1])
            if solution[-1] in tokens.eos:
                finish = "stop"
    return {"thinking": thinking, "bridge": bridge, "solution": solution, "reason": reason, "finish": finish}


def segments(rollout) -> dict:
    """A Rollout in the form of `reference_rollout`."""
    return {
        "thinking": list(rollout.thinking_ids),
        "bridge": list(rollout.bridge_ids),
        "solution": list(rollout.solution_ids),
        "reason": str(rollout.thinking_stop_reason),
        "finish": str(rollout.finish_reason),
    }


@torch.no_grad()
def next_logits(model, ids: Sequence[int]) -> torch.Tensor:
    """Logits [vocabulary] of the token after `ids`, by a full forward of this row alone, in float32."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1].float()


def greedy(model) -> Choose:
    return lambda ids: int(next_logits(model, ids).argmax())
