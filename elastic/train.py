"""Train a reasoning model on budget-constrained rollouts.

accelerate launch --config_file launch/cpu.yaml -m elastic.train --config recipes/nano.yaml --learning_rate 3e-4
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from elastic.anytime_arguments import AnytimeArguments
from elastic.arguments import BudgetArguments, DataArguments, GradingArguments, RunArguments
from elastic.parsing import Parser, parse, sentence_on_error

PROG = "python -m elastic.train"
SIGTERM_EXIT_CODE = 143
SIGINT_EXIT_CODE = 130
FAULT_EXIT_CODE = 1
# Said at every step by the libraries to one another; nothing for the person at the terminal to do.
_NOISE = (
    "`is_gradient_checkpointing` is deprecated",
    "`gradient_checkpointing` is deprecated",
    "'pin_memory' argument is set as true",
)


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        return print_help()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    from trl import ModelConfig, get_quantization_config

    from elastic import setup
    from elastic.anytime import AnytimeTrainer
    from elastic.checkpoints import (
        check_counts_tokens,
        check_same_checkpoint,
        checkpoint_to_resume,
        claim_output_dir,
        run_identity,
        set_later_checkpoints_aside,
    )
    from elastic.config import ElasticConfig
    from elastic.engines.transformers import refuse_unsupported
    from elastic.stopping import stop_with_launcher
    from elastic.trainer import ElasticGRPOTrainer

    stop_with_launcher()
    data, run, model, config = parse((DataArguments, RunArguments, ModelConfig, ElasticConfig), argv, prog=PROG)
    with sentence_on_error(PROG):
        rewards = setup.training_rewards(run, config)
        tokenizer = setup.load_tokenizer(model, config)
        dataset = setup.training_set(data, tokenizer, config, rewards)
        setup.check_solutions(run.reward_funcs, dataset)
        setup.check_context(model, tokenizer, data, config, dataset)
        checkpoint = checkpoint_to_resume(run.resume, config.output_dir, config.world_size)
        check_counts_tokens(checkpoint, config.max_rollout_tokens, config.process_index)
        if config.process_index == 0:
            claim_output_dir(config.output_dir, run_identity(data, run, model, config))
            begin_records(run, config, resumed=checkpoint is not None)

    with sentence_on_error(PROG):
        trainer_of = {"grpo": ElasticGRPOTrainer, "anytime": AnytimeTrainer}
        trainer = trainer_of[config.algorithm](
            model=model.model_name_or_path,
            reward_funcs=rewards.functions,
            grade_ahead=rewards.grade_ahead,
            args=setup.with_model_options(config, model),
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=setup.lora_config(model),
            quantization_config=get_quantization_config(model),
        )
        if not config.use_vllm:
            refuse_unsupported(trainer.model)
        check_same_checkpoint(checkpoint)
    if checkpoint is not None:
        trainer.say(f"Resuming from {checkpoint}: the data go on in the order that they had.")
        if config.process_index == 0 and (aside := set_later_checkpoints_aside(config.output_dir, checkpoint)):
            trainer.say(f"The later checkpoints are set aside: {', '.join(path.name for path in aside)}.")
    run_to_the_end(trainer, checkpoint)


def begin_records(run: RunArguments, config, resumed: bool) -> None:
    """W&B, and no mark of an earlier stop."""
    from elastic.stopping import stopped_mark
    from elastic.tracking import start_wandb

    stopped_mark(config.output_dir).unlink(missing_ok=True)
    start_wandb(
        config.report_to,
        project=run.wandb_project,
        entity=run.wandb_entity,
        name=config.run_name,
        folder=config.output_dir,
        resumed=resumed,
    )


def run_to_the_end(trainer, checkpoint: Path | None) -> None:
    """Train and save the model, or say why the run has stopped, and exit."""
    from elastic.checkpoints import is_of_the_disk
    from elastic.engines.requested import EngineError
    from elastic.faults import NonFiniteError
    from elastic.grading import GradingError, one_line
    from elastic.stopping import stopped_mark

    output_dir = trainer.args.output_dir
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (GradingError, NonFiniteError, EngineError) as error:
        trainer.say(f"{PROG}: error: {error}", file=sys.stderr)
        sys.exit(FAULT_EXIT_CODE)
    except KeyboardInterrupt:
        trainer.say(f"Interrupted in step {trainer.state.global_step + 1}; {trainer.way_on}", file=sys.stderr)
        sys.exit(SIGINT_EXIT_CODE)
    if trainer.stop.stopped:
        said = f"Stopped by SIGTERM after step {trainer.state.global_step}; {trainer.way_on}"
        trainer.say(said)
        if trainer.args.process_index == 0:
            with suppress(OSError):  # a disk that is full
                stopped_mark(output_dir).write_text(f"{said}\n")
        sys.exit(SIGTERM_EXIT_CODE)
    try:
        trainer.save_model(output_dir)
    except Exception as error:
        if not is_of_the_disk(error):
            raise
        said = f"The trained model could not be saved in {output_dir} ({one_line(error)})"
        trainer.say(f"{PROG}: error: {said}: make room, and start the same command again.", file=sys.stderr)
        sys.exit(FAULT_EXIT_CODE)
    trainer.say(f"The trained model is in {output_dir}.")


def print_help() -> None:
    """Our own options, without the seconds that it takes to import TRL."""
    parser = Parser(
        (DataArguments, RunArguments, BudgetArguments, AnytimeArguments, GradingArguments),
        PROG,
        "Train a reasoning model with GRPO on budget-constrained rollouts (E1, arXiv 2505.05315). Besides the options "
        "below, every field of trl.GRPOConfig and trl.ModelConfig is one, by its own name (model_name_or_path, "
        "output_dir, learning_rate, num_generations, use_peft, ...). Options may stand in the recipe, one a line; the "
        "command line wins.",
    )
    parser.print_help()


if __name__ == "__main__":
    main()
