"""What stands in for elastic.nano, elastic.train and elastic.evaluate where elastic.compare itself is tested.

`python fake_runs.py task|train|evaluate WORDS` writes the files that the comparison reads, goes on from what is there,
and takes its time, so that it can be killed. What it does is written to `journal`, beside its output folder. A model is
a file with its skill, the mean tokens of its chains and its seed.
"""

import argparse
import hashlib
import json
import random
import sys
import time
from pathlib import Path

import yaml

MODEL = "model.safetensors"
STEP_S = 0.004
SAVE_EVERY = 5
TOKENS_AN_UPDATE = 90
BUDGETS = (0, 8, 16, 32)
PROBLEMS, SAMPLES = 12, 2
NO_LIMIT = -1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["task", "train", "evaluate"])
    parser.add_argument("--config")
    parser.add_argument("--config_file", help="the launch file")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output_dir")
    parser.add_argument("--skill", type=float, default=0.3)
    options = parser.parse_args()
    if options.what == "task":
        return make_task(Path(options.output_dir), options.seed, options.skill)
    recipe = yaml.safe_load(Path(options.config).read_text())
    {"train": train, "evaluate": evaluate}[options.what](recipe, Path(recipe["output_dir"]))


def note(output_dir: Path, line: str) -> None:
    with (output_dir.parent / "journal").open("a") as journal:
        journal.write(line + "\n")


def make_task(output_dir: Path, seed: int, skill: float) -> None:
    if output_dir.exists():
        return
    note(output_dir, "task")
    time.sleep(10 * STEP_S)
    staged = output_dir.with_name(".staged")
    (staged / "base").mkdir(parents=True, exist_ok=True)
    (staged / "base" / MODEL).write_text(json.dumps({"skill": skill, "tokens": 60, "seed": seed}))
    for name in ("train.jsonl", "test.jsonl"):
        (staged / name).write_text("")
    staged.rename(output_dir)


def train(recipe: dict, output_dir: Path) -> None:
    """Until `max_rollout_tokens`; the skill rises with each update, by as much as the learning rate says."""
    if recipe["learning_rate"] > 1:
        sys.exit("learning_rate is too high")
    model = json.loads(Path(recipe["model_name_or_path"], MODEL).read_text())
    output_dir.mkdir(exist_ok=True)
    saved = sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((saved[-1] / "trainer_state.json").read_text())["log_history"] if saved else []
    rng = random.Random(model["seed"])
    while TOKENS_AN_UPDATE * len(history) < recipe["max_rollout_tokens"]:
        time.sleep(STEP_S)
        tokens = TOKENS_AN_UPDATE * (len(history) + 1)
        note(output_dir, f"update {len(history) + 1}")
        history.append({"loss": 0.0, "budget/rollout_tokens": tokens, "time/cpu_s": time.process_time()})
        if len(history) % SAVE_EVERY == 0 or tokens >= recipe["max_rollout_tokens"]:
            save(output_dir, history)
    skill = model["skill"] + recipe["learning_rate"] * len(history) + rng.gauss(0, 0.02)
    trained = {"skill": skill, "tokens": recipe["thinking_token_budget"], "seed": model["seed"]}
    (output_dir / MODEL).write_text(json.dumps(trained))


def save(output_dir: Path, history: list) -> None:
    state = json.dumps({"global_step": len(history), "log_history": history})
    staged = output_dir / "staged"
    staged.mkdir(exist_ok=True)
    (staged / "trainer_state.json").write_text(state)
    files = {"trainer_state.json": len(state)}
    content = {"global_step": len(history), "processes": 1, "files": files}
    (staged / "elastic_files.json").write_text(json.dumps(content))
    place = output_dir / f"checkpoint-{len(history)}"
    if not place.exists():
        staged.rename(place)


def evaluate(recipe: dict, output_dir: Path) -> None:
    models = [recipe[name] for name in ("model_name_or_path", "solution_model_name_or_path") if name in recipe]
    thinker, solver = (json.loads(Path(model, MODEL).read_text()) for model in (models[0], models[-1]))
    output_dir.mkdir(exist_ok=True)
    path = output_dir / "generations.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    path.write_text("".join(line + "\n" for line in lines))  # without a line that was cut
    there = {tuple(json.loads(line)[name] for name in ("key", "problem_id", "sample")) for line in lines}
    cells = []
    for control, budget in grid(recipe):
        key = digest(control, budget, thinker, solver)
        for problem in range(PROBLEMS):
            for sample in range(SAMPLES):
                if (key, str(problem), sample) not in there:
                    time.sleep(STEP_S / 20)
                    row = sampled(thinker, solver, control, budget, problem, sample)
                    with path.open("a") as file:
                        file.write(json.dumps(row | {"key": key}) + "\n")
                    note(output_dir, f"{control} {budget} {problem} {sample}")
        cells.append(measured(control, budget, key, path, recipe))
    (output_dir / "results.json").write_text(json.dumps(cells))


def grid(recipe: dict) -> list[tuple[str, int]]:
    cells = [(control, 0) if control == "zero" else (control, t) for control in recipe["control"] for t in BUDGETS]
    return list(dict.fromkeys(cells)) + ([("none", NO_LIMIT)] if recipe["no_budget"] else [])


def digest(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def sampled(thinker, solver, control, budget, problem, sample) -> dict:
    rng = random.Random(digest(thinker, solver, control, budget, problem, sample))
    needed = rng.uniform(0.3, 1.7) * thinker["tokens"]
    tokens = needed if budget == NO_LIMIT else min(needed, budget)
    chance = min(1.0, solver["skill"] + tokens / needed / 2)
    return {
        **{"problem_id": str(problem), "sample": sample, "reward": float(rng.random() < chance)},
        **{"thinking_tokens": int(tokens), "solution_tokens": 2},
        "thinking_stop_reason": "budget" if tokens < needed else "natural",
    }


def measured(control, budget, key, path, recipe) -> dict:
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if row["key"] == key]
    thinking = sum(row["thinking_tokens"] for row in rows) / len(rows)
    accuracy = sum(row["reward"] for row in rows) / len(rows)
    rates = ("forced_rate", "eos_in_thinking_rate", "solution_truncated_rate", "thinking_cut_rate", "reopened_rate")
    return {
        **{"control": control, "thinking_token_budget": budget, "solution_token_budget": 4, "total_token_budget": -1},
        **{"trained_budget": recipe.get("trained_budget"), "accuracy": accuracy, "ci_low": 0.0, "ci_high": 1.0},
        **{"n_problems": PROBLEMS, "n_samples": len(rows), "ungraded": 0, "thinking_tokens": thinking},
        **{"thinking_tokens_p95": 0.0, "solution_tokens": 2.0, "solution_tokens_p95": 2.0},
        **{"total_tokens": thinking + 2.0, **dict.fromkeys(rates, 0.0)},
        **{"model_label": recipe["model_label"], "benchmark": "test", "data_fingerprint": "data", "sampling": {}},
        **{"reward": "exact", "key": key},
    }


if __name__ == "__main__":
    main()
