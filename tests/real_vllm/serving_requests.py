"""Requests with separate budgets, answered in this process by vLLM with the plug-in of elastic.serving.

`python serving_requests.py FOLDER COUNT` prints what the V2 model runner answers to the first ones, as JSON.
"""

import json
import random
import sys
from pathlib import Path

from vllm_models import TOKENIZER, TOKENS, load_llm

from elastic.budget import Budget

MOST_TOKENS = 100
MARKERS = {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}
PLUGIN = "elastic.serving.plugin:TokenBudgets"
CUT = TOKENIZER.pad_token_id


def make_requests(count: int) -> list[tuple[list[int], Budget]]:
    """(prompt, budget), of every mixture of short, long and no budgets."""
    rng = random.Random(0)
    words = range(6, len(TOKENIZER))
    prompts = [[1, *rng.choices(words, k=rng.randrange(1, 40)), *TOKENS.start] for _ in range(count)]
    budgets = [(t, s) for t in (0, 1, 3, 9, 20, -1) for s in (0, 1, 2, 7, 40, -1)]
    return [(prompt, Budget(*budgets[row % len(budgets)], total=MOST_TOKENS)) for row, prompt in enumerate(prompts)]


def ask(llm, requests, *, native: bool = False, **options) -> list[dict]:
    """One answer for each request.

    Args:
        native: whether vLLM closes the thinking itself.
        options: more extra arguments, and `stop_token_ids`.
    """
    from vllm import SamplingParams

    stops = options.pop("stop_token_ids", None)

    def params(budget: Budget) -> SamplingParams:
        extra = {"solution_token_budget": budget.solution} | options
        thinking = {"thinking_token_budget": budget.thinking}
        return SamplingParams(
            temperature=0,
            max_tokens=MOST_TOKENS,
            stop_token_ids=stops,
            extra_args=extra if native else extra | thinking,
            **(thinking if native and budget.thinking != -1 else {}),
        )

    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt, _ in requests],
        [params(budget) for _, budget in requests],
        use_tqdm=False,
    )
    return [
        {"ids": list(answer.token_ids), "finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason}
        for answer in (output.outputs[0] for output in outputs)
    ]


def load(folder: Path):
    return load_llm(folder, reasoning_config=MARKERS, logits_processors=[PLUGIN])


def main() -> None:
    import interpreted_triton  # noqa: F401

    folder, count = sys.argv[1:]
    llm = load(Path(folder))
    assert llm.llm_engine.vllm_config.use_v2_model_runner
    print(json.dumps(ask(llm, make_requests(int(count)))))


if __name__ == "__main__":
    main()
