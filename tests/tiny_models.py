"""Random models of a few thousand parameters, of every kind of attention and of position that the engine meets.

Their weights are large, so that a greedy chain wanders over the vocabulary and a wrong position or mask changes it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf
from reference import TOKENS, VOCABULARY

CONTEXT = 96
WINDOW = 8
_IDS = dict(vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=None, eos_token_id=1, tie_word_embeddings=False)
_SHAPE = dict(
    **_IDS,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
)
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)

CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**_SHAPE),
    "qwen3": lambda: hf.Qwen3Config(**_SHAPE, head_dim=8),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**_SHAPE, **_EXPERTS, head_dim=8),
    "mixtral": lambda: hf.MixtralConfig(**_SHAPE, num_local_experts=4),
    "deepseek_v3, latent attention": lambda: hf.DeepseekV3Config(
        **(_SHAPE | dict(num_key_value_heads=4)),
        **dict(n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=16),
        **dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8),
    ),
    "gpt2, learned positions": lambda: hf.GPT2Config(**_IDS, n_embd=32, n_layer=4, n_head=4, n_positions=CONTEXT),
    "opt, learned positions from 2": lambda: hf.OPTConfig(
        **_IDS,
        **dict(hidden_size=32, ffn_dim=48, num_hidden_layers=4, num_attention_heads=4, word_embed_proj_dim=32),
        max_position_embeddings=CONTEXT,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        **_IDS,
        **dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4),
        max_position_embeddings=CONTEXT,
    ),
    "bloom, alibi": lambda: hf.BloomConfig(**_IDS, hidden_size=32, n_layer=4, n_head=4),
    "mpt, alibi": lambda: hf.MptConfig(**_IDS, d_model=32, n_layers=4, n_heads=4, max_seq_len=CONTEXT),
    "falcon, alibi": lambda: hf.FalconConfig(
        **_IDS, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, alibi=True
    ),
    "mistral, sliding": lambda: hf.MistralConfig(**_SHAPE, sliding_window=WINDOW),
    "qwen2, half sliding": lambda: hf.Qwen2Config(
        **_SHAPE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
    "gemma2, alternating": lambda: hf.Gemma2Config(**_SHAPE, head_dim=8, sliding_window=WINDOW),
    "gemma3, alternating": lambda: hf.Gemma3TextConfig(
        **_SHAPE, head_dim=8, sliding_window=WINDOW, layer_types=_ALTERNATING
    ),
    "gemma4, layers of different widths": lambda: hf.Gemma4TextConfig(
        **_SHAPE,
        **dict(sliding_window=WINDOW, layer_types=_ALTERNATING, num_kv_shared_layers=0),
        **dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY),
    ),
    "gpt_oss, alternating with sinks": lambda: hf.GptOssConfig(
        **_SHAPE,
        **dict(head_dim=8, sliding_window=WINDOW, layer_types=_ALTERNATING, num_local_experts=4, num_experts_per_tok=2),
    ),
}


def build(config: hf.PreTrainedConfig, seed: int = 0, std: float = 0.35):
    """A causal language model of `config`, in eval mode and float32; EOS is rare, so that chains outgrow a window."""
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, std)
        model.get_output_embeddings().weight[list(TOKENS.eos)] *= 0.3
    return model.eval()


def tiny(name: str = "llama", seed: int = 0, std: float = 0.35, **changes):
    config = CONFIGS[name]()
    config.update(changes)
    return build(config, seed, std)
