"""Rollouts from a Hugging Face model by a decode loop of our own, on CPU or GPU.

`generate()` has no thinking budget and goes on computing finished rows. Here every row has its own (t, s) and goes on
to its solution as soon as its own thinking ends, equal prompts are prefilled once, and finished rows leave the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil
import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from elastic.budget import Budget, ReasoningTokens
from elastic.engines.kv_cache import GrowingCache
from elastic.engines.sampler import Sampler
from elastic.rollout import Rollout, RolloutBuilder, Sampling

_CACHED_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Models that take no position_ids, since their attention knows distances only (ALiBi).
_WITHOUT_POSITIONS = {"bloom", "mpt"}


class TransformersEngine:
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
        self.pad_token_id = pad_token_id
        self.device = model.get_input_embeddings().weight.device
        config = model.config.get_text_config(decoder=True)
        self.context_length = context_length(config)
        self.max_batch_tokens = max_batch_tokens or _free_batch_tokens(model, config, self.device)
        accepted = _forward_parameters(model)
        self.takes_position_ids = "position_ids" in accepted
        self.last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        budgets: Sequence[Budget],
        sampling: Sampling,
        *,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_rollout: Callable[[int, Rollout], None] | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> list[Rollout]:
        """One rollout for each prompt, in order; the random numbers of row i depend on (seed, streams[i]) alone.

        Args:
            prompts: token ids; thinking is opened where a prompt does not open it. Equal ones share their prefill.
            budgets: one for each prompt.
            streams: the number of each row's random stream; unset, its place. A row that is sampled elsewhere or later
                with the same number and seed is the same row.
            on_rollout: called with the place and the rollout of each as soon as it has finished, while others go on.
            on_step: called before each token of the rows that are sampled side by side; what it raises ends them all.

        Raises:
            ValueError: a prompt with its budget does not fit the model's context.
        """
        builders = [
            RolloutBuilder(self.tokens.open(prompt), budget, self.tokens, self.context_length)
            for prompt, budget in zip(prompts, budgets, strict=True)
        ]
        rollouts: dict[int, Rollout] = {}

        def finish(row: int) -> None:
            rollouts[row] = builders[row].build()
            if on_rollout is not None:
                on_rollout(row, rollouts[row])

        for row in [row for row, builder in enumerate(builders) if builder.finished]:
            finish(row)
        was_training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            for rows in self._slices(builders):
                own_streams = rows if streams is None else [streams[row] for row in rows]
                self._decode(rows, builders, Sampler(sampling, seed, own_streams, self.device), finish, on_step)
        finally:
            for module in was_training:
                module.training = True
        return [rollouts[row] for row in range(len(builders))]

    def _slices(self, builders: list[RolloutBuilder]) -> Iterator[list[int]]:
        """Rows that are decoded together: similar lengths side by side, each slice within `max_batch_tokens`."""
        unfinished = [row for row, builder in enumerate(builders) if not builder.finished]
        rows, longest_prompt = [], 0
        for row in sorted(unfinished, key=lambda row: builders[row].most_new_tokens):
            longest_prompt = max(longest_prompt, len(builders[row].prompt_ids))
            width = longest_prompt + builders[row].most_new_tokens
            if rows and (len(rows) + 1) * width > self.max_batch_tokens:
                yield rows
                rows, longest_prompt = [], len(builders[row].prompt_ids)
            rows.append(row)
        if rows:
            yield rows

    def _decode(
        self,
        rows: list[int],
        builders: list[RolloutBuilder],
        sampler: Sampler,
        finish: Callable[[int], None],
        on_step: Callable[[], None] | None,
    ) -> None:
        """Decode the builders of `rows` side by side until all of them have finished."""
        live = [builders[row] for row in rows]
        batch = _Batch(self, [builder.prompt_ids for builder in live])
        while True:
            if on_step is not None:
                on_step()
            tokens = _advance(live, sampler, batch.logits_BV)
            kept = _surviving(live)
            if len(kept) < len(live):
                for row in rows:
                    if builders[row].finished:
                        finish(row)
                if not kept:
                    return
                rows, live, tokens = ([column[place] for place in kept] for column in (rows, live, tokens))
                batch.keep(kept)
                sampler.select(kept)
            batch.step(tokens)


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


class _Batch:
    """The rows that are being decoded: their cache, the mask over its columns, and the logits of the next token.

    Prompts are padded on the left, so that every row appends its next token in the same column.
    """

    def __init__(self, engine: TransformersEngine, prompts: list[list[int]]):
        self._engine = engine
        self._cache = GrowingCache()
        unique = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        longest = max(map(len, unique))
        pads = [longest - len(prompt) for prompt in unique]
        ids = [[engine.pad_token_id] * pad + list(prompt) for pad, prompt in zip(pads, unique, strict=True)]
        mask_BL = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=engine.device)
        self._mask_BL = mask_BL if any(pads) else None
        self._positions_B1 = torch.tensor([[longest - pad - 1] for pad in pads], device=engine.device)
        positions_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
        self.logits_BV = self._forward(torch.tensor(ids, device=engine.device), positions_BL)
        if len(unique) < len(prompts):
            self._spread(torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=engine.device))

    def _spread(self, rows_B: torch.Tensor) -> None:
        """Make one row of each of `rows_B`, repeats allowed."""
        self.logits_BV = self.logits_BV[rows_B]
        self._select_mask(rows_B)
        self._cache.spread(rows_B)

    def _select_mask(self, rows_B: torch.Tensor) -> None:
        self._positions_B1 = self._positions_B1[rows_B]
        if self._mask_BL is not None:
            self._mask_BL = self._mask_BL[rows_B]

    def step(self, tokens: list[int]) -> None:
        """Append one token to each row."""
        self._positions_B1 = self._positions_B1 + 1
        if self._mask_BL is not None:
            self._mask_BL = torch.nn.functional.pad(self._mask_BL, (0, 1), value=1)
        ids_B1 = torch.tensor(tokens, device=self._engine.device)[:, None]
        self.logits_BV = self._forward(ids_B1, self._positions_B1)

    def keep(self, rows: list[int]) -> None:
        """Drop all but `rows`, in the order of `_surviving`, and the columns that are padding in all of them."""
        self._select_mask(torch.tensor(rows, device=self._engine.device))
        first_column = 0
        if self._mask_BL is not None:
            first_column = int(self._mask_BL.argmax(dim=1).min())
            mask_BL = self._mask_BL[:, first_column:]
            self._mask_BL = None if mask_BL.all() else mask_BL
        self._cache.keep(rows, first_column)

    def _forward(self, ids_BL: torch.Tensor, positions_BL: torch.Tensor) -> torch.Tensor:
        outputs = self._engine.model(
            input_ids=ids_BL,
            attention_mask=self._mask_BL,
            past_key_values=self._cache,
            use_cache=True,
            **({"position_ids": positions_BL} if self._engine.takes_position_ids else {}),
            **self._engine.last_logits_only,
        )
        return outputs.logits[:, -1]


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
