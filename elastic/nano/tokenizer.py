"""A tokenizer of whole words for an embedded task, with a chat template that opens the thinking."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from elastic.nano.chains import CHAINS
from elastic.nano.task import Task

CONTEXT_TOKENS = 1024
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<think>", "</think>")

# `budget 40` in a problem and `left 32` among the thinking speak of tokens.
_BUDGET_WORDS = ("budget", "left")
_DIGITS = tuple("0123456789")
_DIGIT_OF_A_NUMBER = Regex(r"(?<![+*])\d(?!>)")

# A turn of the user is `<bos> PROBLEM ?`; the reply is `<think> CHAIN </think> ans X <eos>`.
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ bos_token + ' ' + message.content + ' ?' }}
{%- elif message.role == 'assistant' -%}
{{ ' ' + message.content + ' ' + eos_token }}
{%- else -%}
{{ raise_exception('The nano model knows the roles user and assistant only, not ' + message.role + '.') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ ' <think>' }}
{%- endif -%}
"""


def make_tokenizer(task: Task = CHAINS) -> PreTrainedTokenizerFast:
    """A task's tokenizer: one token for each word, operand (`*4`), marker and digit of a number."""
    words = (*_SPECIAL, *_DIGITS, *task.words, *_BUDGET_WORDS)
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = Sequence([WhitespaceSplit(), Split(_DIGIT_OF_A_NUMBER, "isolated")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<think>", "</think>"],
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )
