"""The plug-in that gives a vLLM server separate budgets: `--logits-processors elastic.serving.plugin:TokenBudgets`.

A request asks by `vllm_xargs` (in this process: `SamplingParams(extra_args=...)`):

    thinking_token_budget    sampled tokens of thinking; then the end marker is inserted
    solution_token_budget    sampled tokens of solution; then the answer ends
    solution_stop_token_id   the token that ends it there, one of the request's stop_token_ids, instead of EOS

A logits processor can only choose tokens, so that an answer which is cut ends in a token that the model did not
sample, after the `solution_token_budget` ones that it did. vLLM leaves it out of the text, counts it in
`completion_tokens`, and reports `finish_reason: stop`. With a `solution_stop_token_id` that the model never samples,
such as its padding, `stop_reason` is that id exactly if the answer was cut. The request's own `thinking_token_budget`,
which vLLM enforces, may stand for the first of the three.

vLLM has two interfaces for logits processors, and its model runner decides which one it is. `TokenBudgets` is both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from vllm import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from elastic.budget import UNLIMITED, opened_endings
from elastic.serving.phases import BatchPhases, Markers, RequestBudgets, RequestPhases

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor
except ImportError:  # vLLM below 0.31, which goes to its V1 model runner where it is given a logits processor
    V2LogitsProcessor = object

# What vLLM itself gives the token that it forces: above every other logit at any temperature, and finite.
_FORCED_LOGIT = 1e9
_NO_BUDGETS = RequestBudgets(UNLIMITED, UNLIMITED, None)


class TokenBudgets(V1LogitsProcessor, V2LogitsProcessor):
    """What `--logits-processors` names: makes the processor of the interface that it is called by."""

    def __new__(cls, vllm_config, *arguments):
        # V1 gives a device and whether memory is pinned, V2 the state of the requests.
        interface = TokenBudgetsV1 if len(arguments) == 2 else TokenBudgetsV2
        return interface(vllm_config, *arguments)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError, which the server answers with status 400, for a request that cannot be served."""
        budgets = RequestBudgets.read(sampling_params.extra_args)
        if budgets is None:
            return
        if budgets.thinking != UNLIMITED and sampling_params.thinking_token_budget is not None:
            raise ValueError("thinking_token_budget is given twice: leave it out of vllm_xargs or out of the request.")
        if budgets.solution == UNLIMITED:
            return
        stops = sampling_params.stop_token_ids or []
        if budgets.stop_token_id is not None and budgets.stop_token_id not in stops:
            raise ValueError(
                f"solution_stop_token_id is {budgets.stop_token_id}, which ends no answer: add it to stop_token_ids."
            )
        if sampling_params.ignore_eos and budgets.stop_token_id is None:
            raise ValueError("ignore_eos leaves a solution_token_budget no way to end: add a solution_stop_token_id.")
        if sampling_params.structured_outputs is not None:
            raise ValueError("A solution_token_budget would cut structured outputs: use max_tokens for them.")


class TokenBudgetsV1(V1LogitsProcessor):
    """For the V1 model runner, which keeps each request's tokens in a list on the host."""

    def __init__(self, vllm_config, device: torch.device, is_pin_memory: bool):
        self._markers = _markers(vllm_config)
        self._requests: dict[int, RequestPhases] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update) -> None:
        process_dict_updates(self._requests, batch_update, self._phases)

    def _phases(self, params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]):
        budgets = _budgets(params)
        return None if budgets is None else RequestPhases(self._markers, budgets, prompt_ids or [], output_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        # Not in update_state: only here does the engine know the token that it sampled last.
        forced = {row: phases.forced_token() for row, phases in self._requests.items()}
        forced = {row: token for row, token in forced.items() if token is not None}
        if forced:
            rows, tokens = torch.tensor([[*forced], [*forced.values()]], device=logits.device)
            logits[rows, tokens] = _FORCED_LOGIT
        return logits


class TokenBudgetsV2(V2LogitsProcessor):
    """For the V2 model runner, which keeps the tokens of every request on the device, in a slot."""

    def __init__(self, vllm_config, req_states):
        if vllm_config.speculative_config is not None:
            raise ValueError("TokenBudgets does not serve with speculative decoding: leave --speculative-config out.")
        self._states = req_states
        self._phases = BatchPhases(_markers(vllm_config), req_states.max_num_reqs, req_states.device)
        self._has_budgets = np.zeros(req_states.max_num_reqs, dtype=bool)
        self._admitted: dict[int, RequestBudgets] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        budgets = _budgets(sampling_params)
        self._has_budgets[req_idx] = budgets is not None
        self._admitted[req_idx] = _NO_BUDGETS if budgets is None else budgets
        return budgets is not None

    def apply_staged_writes(self) -> None:
        if self._admitted:
            self._phases.admit(self._admitted, *self._tokens())
            self._admitted = {}

    def _tokens(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens [S, L], their number in the prompt [S] and in all [S], as they are now: the buffers change places."""
        return self._states.all_token_ids.gpu, self._states.prompt_len.gpu, self._states.total_len.gpu

    def apply(self, logits: torch.Tensor, ctx) -> torch.Tensor:
        if not self._has_budgets[ctx.idx_mapping_np].any():
            return logits
        # Without speculative decoding there is one row of logits for each request.
        forced_B1 = self._phases.forced_tokens(ctx.idx_mapping.long(), *self._tokens())[:, None]
        column_B1 = forced_B1.clamp(min=0)
        values_B1 = torch.where(forced_B1 >= 0, _FORCED_LOGIT, logits.gather(1, column_B1))
        return logits.scatter_(1, column_B1, values_B1)


def _budgets(params: SamplingParams) -> RequestBudgets | None:
    """What the request asks for, with the model's EOS where it names no other token to end with."""
    budgets = RequestBudgets.read(params.extra_args)
    if budgets is None or budgets.stop_token_id is not None:
        return budgets
    return replace(budgets, stop_token_id=params.eos_token_id)


def _markers(vllm_config) -> Markers:
    config = vllm_config.reasoning_config
    if config is None or not config.enabled:
        raise ValueError(
            "TokenBudgets needs the reasoning markers: add --reasoning-config "
            """'{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}'."""
        )
    start = tuple(config.reasoning_start_token_ids)
    tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
    return Markers(
        start=start,
        end=tuple(config.natural_reasoning_end_token_ids),
        bridge=tuple(config.reasoning_end_token_ids),
        # A --reasoning-parser names the marker without the string of it.
        opened=opened_endings(tokenizer, config.reasoning_start_str or tokenizer.decode(start)),
    )
