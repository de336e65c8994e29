"""The cold start: supervised training of the tiny model from nothing to long-winded, mostly right chains of thought."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, get_cosine_with_min_lr_schedule_with_warmup

from elastic.nano.arguments import NanoArguments
from elastic.nano.model import make_model
from elastic.nano.task import Task, Writer, draw_of_split

# Share of examples whose problem is followed by `budget N`, and of these the share whose chain is interrupted by
# `left M`: neither says anything about the chain, for to obey is left to training.
BUDGET_RATE = 0.15
REMINDER_RATE = 0.5
BUDGETS = range(1, 161)
REMINDER_INTERVALS = (4, 8, 12, 16, 24, 32)
_IGNORED = -100
# Examples are sorted by length within a pool of this many, so that a batch holds little padding.
_POOL_EXAMPLES = 128
_WARM_UP_STEPS = 30
_SOLUTION_TOKENS = 3
_RECENT_STEPS = 50


class Example(NamedTuple):
    """A conversation, and which of its last tokens are trained: one entry for each token after `<think>`."""

    conversation: list[dict[str, str]]
    trained: list[bool]


def draw_example(task: Task, difficulty: int, writer: Writer, rng: random.Random) -> Example:
    """A problem of the train split with a chain of thought and its solution.

    Some chains are cut anywhere and answered with a guess; their solution alone is trained. The model learns no shorter
    thinking from them, only that a solution follows the end marker wherever it is.
    """
    problem = draw_of_split(task.draw_for_training, rng, "train", difficulty)
    chain, solution = writer.write(problem, rng).split(), problem.answer
    is_cut = rng.random() < task.cut_rate
    if is_cut:
        chain = chain[: int(len(chain) * rng.random() ** 2)]
        solution = task.guess(problem, chain, rng)
    text, interval = problem.text, len(chain) + 1
    budget = rng.choice(BUDGETS)
    if rng.random() < BUDGET_RATE:
        text += f" budget {budget}"
        if rng.random() < REMINDER_RATE:
            interval = rng.choice(REMINDER_INTERVALS)
    words, trained = _with_reminders(chain, interval, budget)
    if is_cut:
        trained = [False] * len(words)
    reply = " ".join(["<think>", *words, "</think>", solution])
    conversation = [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
    return Example(conversation, [*trained, not is_cut, *[True] * _SOLUTION_TOKENS])


def _with_reminders(chain: list[str], interval: int, budget: int) -> tuple[list[str], list[bool]]:
    """`chain` with `left M` after every `interval` words, while M > 0 of `budget`; and which words are the chain's."""
    words, trained = [], []
    for count, word in enumerate(chain, start=1):
        words.append(word)
        trained.append(True)
        if count % interval == 0 and count < budget:
            reminder = ["left", *str(budget - count)]
            words += reminder
            trained += [False] * len(reminder)
    return words, trained


def batches(
    arguments: NanoArguments, writer: Writer, tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), each (rows, tokens), at most `batch_tokens` in all, padded on the right."""
    task, batch_tokens = arguments.made_task, arguments.batch_tokens
    while True:
        examples = [draw_example(task, arguments.difficulty, writer, rng) for _ in range(_POOL_EXAMPLES)]
        ids = tokenizer.apply_chat_template([example.conversation for example in examples], return_dict=False)
        rows = sorted(zip(ids, (example.trained for example in examples), strict=True), key=_length)
        pool, batch = [], []
        for row in rows:
            if batch and (len(batch) + 1) * _length(row) > batch_tokens:
                pool.append(batch)
                batch = []
            batch.append(row)
        pool.append(batch)
        rng.shuffle(pool)
        yield from (_tensors(batch, tokenizer.pad_token_id) for batch in pool)


def cold_start(arguments: NanoArguments, tokenizer: PreTrainedTokenizerBase) -> tuple[LlamaForCausalLM, list[float]]:
    """Train a new model by `arguments`; the same arguments give the same model. Returns it and the loss of each step.

    The curriculum matters: the steps are learned from concise chains, where every token counts, and to find them
    again between checks and repetitions is learned afterwards.
    """
    task = arguments.made_task
    model = make_model(task, tokenizer, arguments.seed).train()
    rng = random.Random(f"cold start/{arguments.seed}")
    concise, verbose = (batches(arguments, writer, tokenizer, rng) for writer in (task.concise, task.verbose))
    steps, most_concise_steps = arguments.cold_start_steps, arguments.most_concise_steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, _WARM_UP_STEPS, steps, min_lr_rate=0.05)
    losses: list[float] = []
    learned = False
    with tqdm(total=steps, desc="cold start", unit="step", mininterval=0.5) as bar:
        for step in range(steps):
            learned = learned or step >= most_concise_steps or _is_learned(losses, task.learned_loss)
            losses.append(_step(model, *next(verbose if learned else concise), optimizer))
            schedule.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", chains="verbose" if learned else "concise", refresh=False)
            bar.update()
    return model.eval(), losses


def _step(model, input_ids_BT, labels_BT, optimizer) -> float:
    loss = model(input_ids=input_ids_BT, labels=labels_BT, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _is_learned(losses: list[float], learned_loss: float) -> bool:
    recent = losses[-_RECENT_STEPS:]
    return len(recent) == _RECENT_STEPS and sum(recent) / _RECENT_STEPS < learned_loss


def _length(row: tuple[list[int], list[bool]]) -> int:
    return len(row[0])


def _tensors(rows: list[tuple[list[int], list[bool]]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(_length, rows))
    input_ids_BT = torch.full((len(rows), longest), pad_token_id)
    labels_BT = torch.full((len(rows), longest), _IGNORED)
    for b, (ids, trained) in enumerate(rows):
        input_ids_BT[b, : len(ids)] = torch.tensor(ids)
        labels = torch.where(torch.tensor(trained), torch.tensor(ids[-len(trained) :]), _IGNORED)
        labels_BT[b, len(ids) - len(trained) : len(ids)] = labels
    return input_ids_BT, labels_BT
