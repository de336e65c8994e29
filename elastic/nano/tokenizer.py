"""A tokenizer of whole words for the nano task, with a chat template that opens the thinking."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from elastic.nano.task import LABELS, MODULUS, OPERATIONS, WORDS

CONTEXT_TOKENS = 1024
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<think>", "</think>")

# A turn of the user is `<bos> PROBLEM ?`; the reply is `<think> CHAIN </think> ans N <eos>`.
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


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The nano tokenizer: one token for each word, operand (`*4`) and marker; every id is fixed by this file."""
    words = (*_SPECIAL, *map(str, range(MODULUS)), *LABELS, *OPERATIONS, *WORDS)
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
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
