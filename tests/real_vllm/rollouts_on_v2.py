"""Greedy rollouts on vLLM's V2 model runner, the default on CUDA: `python rollouts_on_v2.py FOLDER COUNT`.

Prints, as JSON, the rollouts by two requests each, and whether vLLM's own thinking budget gives such rollouts too.
"""

import interpreted_triton  # noqa: F401, I001  (before vLLM)
import json
import sys
from pathlib import Path

from test_engine_vllm import GREEDY, MARKERS, make_budgets, make_prompts, segments
from vllm_models import TOKENS, load_llm

from elastic.engines.vllm import VLLMEngine, closes_thinking_itself


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    llm = load_llm(folder, reasoning_config=MARKERS)
    assert llm.llm_engine.vllm_config.use_v2_model_runner
    prompts, budgets = make_prompts(count, seed=1), make_budgets(count, seed=1)
    rollouts = VLLMEngine(llm, TOKENS).generate(prompts, budgets, GREEDY)
    print(json.dumps([[segments(rollout) for rollout in rollouts], closes_thinking_itself(llm, TOKENS)]))


if __name__ == "__main__":
    main()
