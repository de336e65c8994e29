"""From logits to sampled tokens and their log-probabilities, with a random stream of its own for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from elastic.rollout import Sampling

_BLOCK = 128


class Sampler:
    """Samples one token a row and step.

    Row r's stream is a Philox generator keyed by (seed, r), and a token is found by inverting the cumulative
    distribution at one uniform number. So a row's tokens do not depend on which rows share its batch, on when finished
    rows leave it, or on how a large batch is sliced.
    """

    def __init__(self, sampling: Sampling, seed: int, rows: Sequence[int], device: torch.device):
        self._greedy = sampling.temperature == 0
        self._warpers = _warpers(sampling)
        self._device = device
        keys = (np.array([seed % 2**64, row], dtype=np.uint64) for row in rows)
        self._streams = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._uniforms_BK = torch.empty(len(self._streams), 0, dtype=torch.float64, device=device)
        self._column = 0

    def select(self, rows: Sequence[int]) -> None:
        """Keep the streams of `rows`."""
        self._streams = [self._streams[row] for row in rows]
        self._uniforms_BK = self._uniforms_BK[torch.tensor(rows, device=self._device)]

    def sample(self, logits_BV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(tokens, logprobs, raw_logprobs), each [rows].

        `logprobs` are those of the distribution that is sampled from; in greedy decoding, as in vLLM, the model's own.
        """
        raw_BV = torch.log_softmax(logits_BV.float(), dim=-1)
        if self._greedy:
            tokens_B = raw_BV.argmax(dim=-1)
            raw_B = _at(raw_BV, tokens_B)
            return tokens_B, raw_B, raw_B
        warped_BV = raw_BV if not self._warpers else torch.log_softmax(self._warpers(None, logits_BV.float()), dim=-1)
        tokens_B = _invert_cdf(warped_BV.exp(), self._next_uniforms())
        return tokens_B, _at(warped_BV, tokens_B), _at(raw_BV, tokens_B)

    def _next_uniforms(self) -> torch.Tensor:
        if self._column == self._uniforms_BK.shape[1]:
            block = np.stack([stream.random(_BLOCK) for stream in self._streams])
            self._uniforms_BK, self._column = torch.from_numpy(block).to(self._device), 0
        self._column += 1
        return self._uniforms_BK[:, self._column - 1]


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    """transformers' own warpers, in the order in which its `generate` applies them."""
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


def _invert_cdf(probs_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulative probability passes the uniform number; one of probability 0 is never chosen.

    Where the probabilities are not numbers, as after a diverged training step, the last token is chosen: Rollout then
    refuses its log-probability.
    """
    cdf_BV = probs_BV.double().cumsum(dim=-1)
    total_B = cdf_BV[:, -1]
    below_total_B = torch.nextafter(total_B, torch.zeros_like(total_B))
    targets_B = torch.minimum(uniforms_B * total_B, below_total_B)
    tokens_B = torch.searchsorted(cdf_BV, targets_B[:, None], right=True).squeeze(1)
    return tokens_B.clamp(max=cdf_BV.shape[1] - 1)


def _at(values_BV: torch.Tensor, tokens_B: torch.Tensor) -> torch.Tensor:
    return values_BV.gather(1, tokens_B[:, None]).squeeze(1)
