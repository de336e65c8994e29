"""What test_deepspeed.py starts on two processes: the bytes of what one of them keeps of a model, after an update."""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from trainer_fixtures import config_fields, even_reward
from transformers import AutoTokenizer, training_args

from elastic.config import ElasticConfig
from elastic.data import load_problems
from elastic.trainer import ElasticGRPOTrainer

# It takes bf16 for a GPU's alone, where DeepSpeed has it on a CPU too.
training_args.is_torch_bf16_gpu_available = lambda: True


def main(folder: Path) -> None:
    fields = config_fields(folder, use_cpu=False, bf16=True, beta=0.01, per_device_train_batch_size=4, max_steps=1)
    trainer = ElasticGRPOTrainer(
        model=str(folder / "model"),
        reward_funcs=even_reward,
        args=ElasticConfig(**fields | {"output_dir": str(folder / os.environ["RANK"]), "max_ungraded_rate": 1.0}),
        train_dataset=Dataset.from_list(load_problems(folder / "problems.jsonl", answer_column="answer")),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
    )
    trainer.train()
    zero = trainer.model_wrapped.optimizer
    third = hasattr(zero, "fp32_partitioned_groups_flat")
    master = zero.fp32_partitioned_groups_flat if third else zero.single_partition_of_fp32_groups
    states = [state[name] for state in zero.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    held = {
        "weights": sum(_held(weight) for weight in trainer.model.parameters()),
        "reference model": sum(_held(weight) for weight in trainer.ref_model.parameters()),
        "optimizer": sum(tensor.nbytes for tensor in (*master, *states)),
    }
    if third:
        held["gradients"] = zero.grad_partitions_flat_buffer.nbytes
    if PartialState().is_main_process:
        print("held:", json.dumps(held), flush=True)


def _held(weight) -> int:
    return (weight.ds_tensor if hasattr(weight, "ds_tensor") else weight).nbytes


if __name__ == "__main__":
    main(Path(sys.argv[1]))
