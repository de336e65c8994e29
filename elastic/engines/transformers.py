"""Rollouts from a Hugging Face model by a decode loop of our own, on CPU or GPU.

`generate()` has no thinking budget and goes on computing finished rows. Here every row has its own (t, s) and goes on
to its solution as soon as its own thinking ends, equal prompts are prefilled once, and finished rows leave the batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from elastic.budget import ReasoningTokens
from elastic.engines.batch import Batch, CachedModel
from elastic.engines.engine import Engine, Growth, OnStep
from elastic.engines.kv_cache import KeptPrefixes, Prefix
from elastic.engines.sampler import Sampler
from elastic.rollout import Rollout
from elastic.rollout_builder import RolloutBuilder

# Fewer rows than these are decoded together, however different their prefixes: a step costs nearly as much for one.
_ROWS_TO_SPLIT = 64
# Tokens of one forward pass over chains that are not in the cache, and the most that follow what is in it.
_PREFILL_TOKENS = 8192
_LONGEST_TAIL = 64
_CACHED_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Models that take no position_ids, since their attention knows distances only (ALiBi).
_WITHOUT_POSITIONS = {"bloom", "mpt"}


class TransformersEngine(Engine):
    """Samples rollouts from a causal language model that transformers loads, PEFT models included.

    Args:
        model: in the state to sample from; its weights, dtype and device are left as they are.
        tokens: the markers and EOS ids.
        pad_token_id: fills the left of shorter prompts; masked, so any valid id serves.
        max_batch_tokens: most positions of KV cache that a slice may need; None: what fits the memory that is free.

    Raises:
        ValueError: the model keeps something other than keys and values for each layer, or counts positions in a way
            that padding on the left would upset.
    """

    def __init__(self, model, tokens: ReasoningTokens, *, pad_token_id: int, max_batch_tokens: int | None = None):
        refuse_unsupported(model)
        self.model = model
        self.tokens = tokens
        self.device = model.get_input_embeddings().weight.device
        config = model.config.get_text_config(decoder=True)
        self.context_length = context_length(config)
        self.max_batch_tokens = max_batch_tokens or _free_batch_tokens(model, config, self.device)
        accepted = _forward_parameters(model)
        self._kept: KeptPrefixes | None = None
        self._cached_model = CachedModel(
            model,
            self.device,
            pad_token_id,
            takes_position_ids="position_ids" in accepted,
            options={"logits_to_keep": 1} if "logits_to_keep" in accepted else {},
        )

    @torch.no_grad()
    def grow(self, builders: Sequence[RolloutBuilder], how: Growth) -> list[Rollout]:
        rollouts: dict[int, Rollout] = {}

        def finish(row: int) -> Rollout:
            rollouts[row] = builders[row].build()
            if how.on_rollout is not None:
                how.on_rollout(row, rollouts[row])
            return rollouts[row]

        for row in [row for row, builder in enumerate(builders) if builder.finished]:
            finish(row)
        was_training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        # What is kept, what is prefilled for forks and what is decoded have a third of the memory each.
        third = self.max_batch_tokens // 3
        forks = any(builder.source is not None for builder in builders)
        batch_tokens = third if forks else 2 * third if how.keep_thinking else self.max_batch_tokens
        self._kept = self._kept or (KeptPrefixes(third) if how.keep_thinking else None)
        try:
            for rows in self._slices(builders, batch_tokens):
                sampler = Sampler(how.sampling, how.seed, [how.streams[row] for row in rows], self.device)
                self._decode(rows, builders, sampler, finish, how.on_step, how.keep_thinking)
        finally:
            for module in was_training:
                module.training = True
        return [rollouts[row] for row in range(len(builders))]

    def forget(self) -> None:
        self._kept = None

    def _slices(self, builders: Sequence[RolloutBuilder], batch_tokens: int) -> Iterator[list[int]]:
        """Rows that are decoded together: similar lengths side by side, each slice within `batch_tokens`.

        Rows that start from a prompt and rows that start from a prefix are not decoded together.
        """
        unfinished = [row for row, builder in enumerate(builders) if not builder.finished]
        order = sorted(unfinished, key=lambda row: (builders[row].source is not None, builders[row].most_new_tokens))
        rows, longest_prompt, narrowest = [], 0, 0
        for row in order:
            builder = builders[row]
            longest_prompt = max(longest_prompt, len(builder.prompt_ids))
            width = longest_prompt + builder.most_new_tokens
            other_start = rows and (builders[rows[0]].source is None) != (builder.source is None)
            # Prefixes are padded to the longest, and attended to at every step.
            padded = builder.source is not None and len(rows) >= _ROWS_TO_SPLIT and width > 1.5 * narrowest
            if rows and (other_start or padded or (len(rows) + 1) * width > batch_tokens):
                yield rows
                rows, longest_prompt = [], len(builder.prompt_ids)
            if not rows:
                narrowest = width
            rows.append(row)
        if rows:
            yield rows

    def _decode(
        self,
        rows: list[int],
        builders: Sequence[RolloutBuilder],
        sampler: Sampler,
        finish: Callable[[int], Rollout],
        on_step: OnStep | None,
        keep_thinking: int,
    ) -> None:
        """Decode the builders of `rows` side by side until all of them have finished."""
        live = [builders[row] for row in rows]
        batch = self._batch(live)
        while True:
            if on_step is not None:
                on_step()
            tokens = _advance(live, sampler, batch.logits_BV)
            kept = _surviving(live)
            if len(kept) < len(live):
                for place, row in enumerate(rows):
                    if builders[row].finished:
                        rollout = finish(row)
                        if keep_thinking:
                            self._keep(batch, place, rollout, keep_thinking)
                if not kept:
                    return
                rows, live, tokens = ([column[place] for place in kept] for column in (rows, live, tokens))
                batch.keep(kept)
                sampler.select(kept)
            batch.step(tokens)

    def _batch(self, live: Sequence[RolloutBuilder]) -> Batch:
        """The rows of `live`, which all start from their prompts, or all from what other rollouts have begun with."""
        if live[0].source is None:
            return Batch.of_prompts(self._cached_model, [builder.prompt_ids for builder in live])
        starts = [_Start.of(builder) for builder in live]
        tail = max(start.tail for start in starts)
        if tail > min(_LONGEST_TAIL, *(len(start.sequence) for start in starts)):
            starts, tail = [_Start(tuple(start.sequence[:-1]), start.sequence, 1) for start in starts], 1
        prefixes: dict[tuple[int, ...], Prefix] = {}
        lacking: dict[tuple[int, ...], list[int]] = {}
        for start in starts:
            prefix = self._kept.get(start.chain) if self._kept else None
            known = start.sequence[: -start.tail] or start.sequence[:1]
            if prefix is not None and len(prefix) >= len(known):
                prefixes[start.chain] = prefix
            elif len(known) > len(lacking.get(start.chain, ())):
                lacking[start.chain] = known
        prefixes |= self._prefilled(lacking)
        sequences = [start.sequence for start in starts]
        return Batch.of_prefixes(self._cached_model, [prefixes[start.chain] for start in starts], sequences, tail)

    def _prefilled(self, lacking: Mapping[tuple[int, ...], list[int]]) -> dict[tuple[int, ...], Prefix]:
        """The prefixes of `lacking`, some at a time: a forward pass has activations for each of its tokens."""
        prefixes, group = {}, []
        waiting = sorted(lacking, key=lambda chain: len(lacking[chain]))
        for place, chain in enumerate(waiting):
            group.append(chain)
            following = len(lacking[waiting[place + 1]]) if place + 1 < len(waiting) else math.inf
            if (len(group) + 1) * following > _PREFILL_TOKENS:
                batch = Batch.of_prompts(self._cached_model, [lacking[chain] for chain in group])
                prefixes |= zip(group, batch.prefixes(), strict=True)
                group = []
        return prefixes

    def _keep(self, batch: Batch, place: int, rollout: Rollout, thinking: int) -> None:
        """Keep what the cache holds of the prompt and of so much of the thinking of a row that has finished."""
        chain = _chain_ids(rollout)
        count = min(len(rollout.prompt_ids) + thinking, len(chain), batch.tokens_of(place))
        if self._kept.has_room(count):
            self._kept.add(chain, batch.prefix(place, count))


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a builder goes on from: its ids so far, of which all but the last `tail` are a beginning of `chain`."""

    chain: tuple[int, ...]
    sequence: list[int]
    tail: int

    @classmethod
    def of(cls, builder: RolloutBuilder) -> _Start:
        chain, sequence = _chain_ids(builder.source), [*builder.prompt_ids, *builder.completion_ids]
        known = min(len(chain), len(sequence) - 1)
        if chain[:known] != tuple(sequence[:known]):
            known = next(place for place in range(known) if chain[place] != sequence[place])
        return cls(chain, sequence, len(sequence) - known)


def _chain_ids(rollout: Rollout) -> tuple[int, ...]:
    return (*rollout.prompt_ids, *rollout.thinking_ids)


def _advance(live: list[RolloutBuilder], sampler: Sampler, logits_BV: torch.Tensor) -> list[int]:
    """Give each row its next token, forced or sampled."""
    tokens = []
    for builder, *sampled in zip(live, *(column.tolist() for column in sampler.sample(logits_BV)), strict=True):
        token = builder.forced_token
        if token is None:
            builder.sample(*sampled)
            token = sampled[0]
        else:
            builder.insert()
        tokens.append(token)
    return tokens


def _surviving(live: list[RolloutBuilder]) -> list[int]:
    """The unfinished rows, the last ones in the places of finished ones, so that few of them move."""
    count = sum(not builder.finished for builder in live)
    behind = (row for row in range(count, len(live)) if not live[row].finished)
    return [next(behind) if live[place].finished else place for place in range(count)]


def _forward_parameters(model) -> Mapping[str, inspect.Parameter]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(base.forward).parameters


def refuse_unsupported(model) -> None:
    if found := _unsupported(model):
        raise ValueError(
            f"{model.config.model_type} {found}: the transformers engine samples from decoder-only models whose layers "
            f"are all full_attention or sliding_attention."
        )


def _unsupported(model) -> str | None:
    """What the engine cannot do justice to; None for a model that it can sample from."""
    config, accepted = model.config.get_text_config(decoder=True), _forward_parameters(model)
    if model.config.is_encoder_decoder:
        return "is an encoder-decoder"
    if hasattr(config, "is_decoder") and hasattr(config, "add_cross_attention"):
        return "is a text encoder, of which some count positions from the padding id"
    if model._is_stateful or not model._supports_default_dynamic_cache() or "past_key_values" not in accepted:
        return "keeps a recurrent state or no cache of keys and values"
    if other := sorted(set(get_layer_types_and_kwargs(config)[0]) - _CACHED_LAYER_TYPES):
        return f"has {', '.join(other)} layers"
    if "position_ids" not in accepted and config.model_type not in _WITHOUT_POSITIONS:
        return "takes no position_ids, which shorter prompts need in a batch"
    if hasattr(model, "active_peft_config") and model.active_peft_config.is_prompt_learning:
        return f"has a {model.active_peft_config.peft_type.value} adapter, which adds tokens to every forward pass"
    return None


def context_length(config) -> int | None:
    """Positions that a rollout may fill; None for a model without a longest context.

    longrope turns every key, the cached ones too, by other angles once a sequence is longer than
    original_max_position_embeddings, so that a cache cannot go on past it.
    """
    if not hasattr(config, "max_position_embeddings"):
        return None
    rope = (config.rope_parameters if hasattr(config, "rope_parameters") else None) or {}
    if "rope_type" in rope and rope["rope_type"] == "longrope":
        return rope["original_max_position_embeddings"]
    return config.max_position_embeddings


def _free_batch_tokens(model, config, device: torch.device) -> int:
    """Positions of KV cache that fit half of the free device memory, or a quarter of the free main memory."""
    bytes_per_token = 2 * model.dtype.itemsize * sum(map(key_width, config.per_layer_config))
    free = torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else psutil.virtual_memory().available / 4
    return max(1, int(free / bytes_per_token))


def key_width(layer_config) -> int:
    """Numbers in one position's keys of one layer."""
    heads = layer_config.num_attention_heads
    kv_heads = layer_config.num_key_value_heads if hasattr(layer_config, "num_key_value_heads") else heads
    has_head_dim = hasattr(layer_config, "head_dim") and layer_config.head_dim is not None
    return kv_heads * (layer_config.head_dim if has_head_dim else layer_config.hidden_size // heads)
