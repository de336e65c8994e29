"""A tiny model that vLLM runs on a CPU, and what the tests do with it."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

from elastic.budget import ReasoningTokens
from elastic.nano.tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()
TOKENS = ReasoningTokens.from_tokenizer(TOKENIZER)
CONTEXT = 512


def save_model(folder: Path, seed: int = 0) -> Path:
    """Random weights so large that a greedy chain wanders; the end marker and EOS come up now and then."""
    torch.manual_seed(seed)
    config = hf.Qwen3Config(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        pad_token_id=TOKENIZER.pad_token_id,
        bos_token_id=TOKENIZER.bos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        tie_word_embeddings=False,
    )
    model = hf.Qwen3ForCausalLM(config).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def load_llm(folder: Path, **options):
    """A vllm.LLM on the CPU in float32."""
    from vllm import LLM

    # Blocks of keys and values as small as the attention allows, so that short chains fill some.
    options = dict(max_model_len=CONTEXT, max_num_seqs=64, block_size=32) | options
    return LLM(str(folder), dtype="float32", enforce_eager=True, logprobs_mode="processed_logprobs", **options)


def load_hf(folder: Path):
    return hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
