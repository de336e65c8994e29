"""The tiny Llama that is cold-started on the nano task."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from elastic.nano.tokenizer import CONTEXT_TOKENS


def make_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """A Llama of about 189K parameters in fp32, its weights drawn from `seed`; the caller's random state is kept."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        # Chains are short: a small base lets most of the rotations tell near tokens from far ones.
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        # Three times the usual width, measured: with 0.02 the arithmetic is not learned within the cold start.
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
