"""Which rows of an update go through the model together: ordered by length, without idle rows and needless padding.

An update of the weights sums the gradients of several micro-batches. TRL cuts them from a shuffled generation batch,
each padded to its longest rollout. The rows of an update are part of the algorithm; how they are divided into
micro-batches is not, as long as the sum of the gradients does not depend on it. From TRL 1.16's `_compute_loss`:

- dapo, cispo, vespo: a sum over tokens, divided by the tokens of the generation batch. It never depends on it.
- grpo, sapo, luspo, dr_grpo: a mean over rows of something of the row alone (dr_grpo: its sum over the longest
  possible rollout). It does not, for micro-batches of as many rows each.
- bnpo: a mean over the tokens of the micro-batch. It does, and so do the mean entropy of entropy_coef, the quantile of
  top_entropy_quantile and the load of a router, whatever the loss.

KL, importance ratios of tokens and of sequences, and off-policy masks are of a row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

TOKEN_SUM_LOSSES = frozenset({"dapo", "cispo", "vespo"})
ROW_MEAN_LOSSES = frozenset({"grpo", "sapo", "luspo", "dr_grpo"})


def term_of_the_micro_batch(args) -> str | None:
    """`field value` of a GRPOConfig whose term of the loss depends on which rows share a micro-batch; None: none is."""
    if args.loss_type not in TOKEN_SUM_LOSSES | ROW_MEAN_LOSSES:
        return f"loss_type {args.loss_type}"
    if args.use_adaptive_entropy:
        return "use_adaptive_entropy true"
    if args.entropy_coef != 0:
        return f"entropy_coef {args.entropy_coef}"
    if args.top_entropy_quantile < 1:
        return f"top_entropy_quantile {args.top_entropy_quantile}"
    return None


def loss_mask(inputs: dict) -> torch.Tensor:
    """1 at the tokens that the policy sampled and the loss counts, [rows, completion tokens]."""
    return inputs["completion_mask"] * inputs["tool_mask"]


def moving_rows(inputs: dict) -> torch.Tensor:
    """Whether each row can move the policy: a token of it that is not masked has an advantage that is not 0.

    Advantages are of rows, [rows], or of tokens, [rows, completion tokens].
    """
    advantages = inputs["advantages"]
    advantages_BT = advantages[:, None] if advantages.dim() == 1 else advantages
    return ((advantages_BT != 0) & (loss_mask(inputs) > 0)).any(dim=1)


def ordered_by_length(micro_batches: Sequence[dict], together: int, *, idle_rows_are_free: bool) -> list[dict]:
    """The micro-batches of a generation batch, each run of `together` with its rows ordered by length, longest first.

    Every run keeps its rows, and every micro-batch its number of rows. Where idle rows are free, the rows that move the
    policy are divided evenly, so that what remains when the others are left out is the same work in each.
    """
    ordered = []
    for start in range(0, len(micro_batches), together):
        run = micro_batches[start : start + together]
        rows = {name: _joined([batch[name] for batch in run]) for name in run[0]}
        lengths_B = rows["completion_mask"].sum(dim=1)
        moving_B = moving_rows(rows) if idle_rows_are_free else torch.ones_like(lengths_B, dtype=torch.bool)
        order_MB = _order(lengths_B, moving_B, len(run))
        ordered += [select_rows(rows, order_B) for order_B in order_MB]
    return ordered


def without_idle_rows(inputs: dict, rows: int, loss_type: str) -> tuple[dict, torch.Tensor | float]:
    """`inputs` with the moving and, up to `rows` of them, the shortest idle ones, and a factor that keeps the loss.

    Args:
        rows: the same on every process, at least 1 and at least as many as move the policy: all processes run a forward
            pass, and TRL gathers a metric for each row.
    """
    tokens_B = loss_mask(inputs).sum(dim=1)
    idle_last_B = torch.where(moving_rows(inputs), -1, inputs["completion_mask"].sum(dim=1)).argsort()
    kept_B = torch.zeros_like(tokens_B, dtype=torch.bool).index_fill(0, idle_last_B[:rows], True)
    share = 1.0
    if loss_type in ROW_MEAN_LOSSES:
        share = kept_B.float().mean()
    elif loss_type not in TOKEN_SUM_LOSSES:
        share = tokens_B[kept_B].sum() / tokens_B.sum().clamp(min=1)
    return select_rows(inputs, kept_B), share


def scored_by_length(
    score: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    completion_width: int,
    batch_size: int,
    *,
    multiple: int,
) -> torch.Tensor:
    """What `score` gives for completions that are ordered by length and trimmed, [rows, `completion_width`].

    Args:
        score: from ids, mask and width of the completion to log-probabilities, which are 0 at padding.
    """
    parts = {"ids": ids_BL, "mask": mask_BL}
    rows = {f"prompt_{name}": part[:, :-completion_width] for name, part in parts.items()}
    rows |= {f"completion_{name}": part[:, -completion_width:] for name, part in parts.items()}
    longest_first_B = rows["completion_mask"].sum(dim=1).argsort(descending=True, stable=True)
    scores_BT = None
    for chosen in longest_first_B.split(batch_size):
        batch = trimmed(select_rows(rows, chosen), multiple)
        ids, mask = (torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], dim=1) for name in parts)
        width = batch["completion_ids"].shape[1]
        found = score(ids, mask, width)
        if scores_BT is None:
            scores_BT = found.new_zeros(len(ids_BL), completion_width)
        scores_BT[chosen, :width] = found
    return scores_BT


def weighted(means: Sequence[float], counts: Sequence[int]) -> list[float]:
    """The means of micro-batches over as many values, scaled so that their own mean is the one over all values."""
    total = max(1, sum(counts))
    return [mean * count * len(counts) / total for mean, count in zip(means, counts, strict=True)]


def select_rows(inputs: dict, rows: torch.Tensor) -> dict:
    """`inputs` with the rows of a mask or an index; what is not one value a row stays."""
    return {name: value if value.dim() == 0 else value[rows] for name, value in inputs.items()}


def trimmed(inputs: dict, multiple: int) -> dict:
    """`inputs` without columns of prompt and completion that are padding in every row; widths stay multiples."""
    prompt_start = int(inputs["prompt_mask"].any(dim=0).int().argmax()) // multiple * multiple
    width = inputs["completion_mask"].shape[1]
    end = width - int(inputs["completion_mask"].any(dim=0).flip(0).int().argmax()) // multiple * multiple
    cut = dict(inputs)
    for name, value in inputs.items():
        if name in ("prompt_ids", "prompt_mask"):
            cut[name] = value[:, prompt_start:]
        elif value.dim() == 2 and value.shape[1] == width:
            cut[name] = value[:, :end]
    return cut


def _order(lengths_B: torch.Tensor, moving_B: torch.Tensor, micro_batches: int) -> torch.Tensor:
    """Which rows each micro-batch gets, [micro-batches, rows of each]: moving and idle ones, each the longest first."""
    longest_first_B = lengths_B.argsort(descending=True, stable=True)
    moving, idle = (longest_first_B[chosen_B[longest_first_B]] for chosen_B in (moving_B, ~moving_B))
    size, parts = len(lengths_B) // micro_batches, []
    for i in range(micro_batches):
        part = moving[i * len(moving) // micro_batches : (i + 1) * len(moving) // micro_batches]
        taken, idle = idle[: size - len(part)], idle[size - len(part) :]
        parts.append(torch.cat([part, taken]))
    return torch.stack(parts)


def _joined(values: list[torch.Tensor]) -> torch.Tensor:
    return values[0] if values[0].dim() == 0 else torch.cat(values)
