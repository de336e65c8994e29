"""What the benchmarks run: random Llamas whose rollouts end by chance, prompts, a tokenizer, and the clock.

All weights are random, so only lengths and shapes matter: a bias on the last layer sets the chance of each marker.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elastic.budget import ReasoningTokens

SPECIAL = ("<pad>", "<eos>", "<unk>", "<think>", "</think>")
PAD, EOS, _, START, END = range(len(SPECIAL))
TOKENS = ReasoningTokens(start=(START,), end=(END,), bridge=(END,), eos=frozenset({EOS}), opened=((START,),))

# (vocabulary, hidden size, intermediate size, layers, heads)
_SHAPES = {
    "nano": (48, 96, 192, 2, 4),
    "tiny": (1024, 128, 384, 6, 4),
    "25M": (8192, 448, 1152, 8, 7),
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% endfor %}{% if add_generation_prompt %} <think>{% endif %}"
)


@dataclass(frozen=True)
class Timed:
    """CPU-seconds of one call, and what it returned."""

    cpu_s: float
    result: object


def random_llama(name: str, chances: Mapping[int, float]) -> LlamaForCausalLM:
    """The Llama of that name in fp32; it samples each token of `chances` with about that probability, 0 for never."""
    vocabulary, hidden, intermediate, layers, heads = _SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype=torch.float32,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    head = torch.nn.Linear(hidden, vocabulary)
    head.weight = model.lm_head.weight
    torch.nn.init.zeros_(head.bias)
    head.bias.requires_grad_(False)
    others = (1 - sum(chances.values())) / (vocabulary - len(chances))
    for token, chance in chances.items():
        head.bias[token] = math.log(chance / others) if chance else -1e4
    model.lm_head = head
    return model


def parameter_count(model: torch.nn.Module) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, the special ones and then `w5`, `w6`, ..., whose chat template opens the thinking."""
    words = (*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary)))
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<think>", "</think>"],
        padding_side="left",
        chat_template=_CHAT_TEMPLATE,
    )


def random_prompts(count: int, mean_tokens: int, vocabulary: int) -> list[list[int]]:
    """`count` prompts of 3/4 to 5/4 of `mean_tokens` tokens, which open the thinking."""
    rng = random.Random(0)
    lengths = [rng.randint(3 * mean_tokens // 4, 5 * mean_tokens // 4) for _ in range(count)]
    return [[*rng.choices(range(len(SPECIAL), vocabulary), k=length - 1), START] for length in lengths]


def alternate(sides: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, list[Timed]]:
    """Call each side once a round, A B A B ..., with the number of the round."""
    timed: dict[str, list[Timed]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            result = side(number)
            timed[name].append(Timed(time.process_time() - start, result))
    return timed
