"""Merge a LoRA adapter into its base model: the directory of a whole model, for whatever loads one.

    python -m elastic.export --model_name_or_path outputs/run --output_dir outputs/merged

Each adapted layer gets W + scale * B A for its W (LoRA, arXiv 2106.09685, section 4.1). The tokenizer and its chat
template are the adapter's, the generation config is the base's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from elastic.parsing import parse, sentence_on_error
from elastic.report import checked_output_dir

PROG = "python -m elastic.export"


@dataclass
class ExportArguments:
    """Which adapter is merged, and where the whole model goes."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "The directory of a LoRA adapter: a run's output_dir, or a checkpoint in it."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Where the merged model goes: a new directory, or an empty one."}
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto",
        metadata={"help": "Precision of the merged weights; auto is the one that the base is stored in."},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with the base model."})

    def __post_init__(self):
        for name in ("model_name_or_path", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is not set: give it as --{name}.")


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    (arguments,) = parse((ExportArguments,), argv, prog=PROG, description="Merge a LoRA adapter into its base model.")
    with sentence_on_error(PROG):
        output_dir = new_directory(arguments.output_dir)
        adapter = adapter_directory(arguments.model_name_or_path)
        base, written = export(adapter, output_dir, arguments)
    print(f"{adapter} is merged into {base}: {written} parameters, in {arguments.output_dir}.")


def new_directory(output_dir: str) -> Path:
    """The path of a directory that is not there, or is empty. Raises ValueError otherwise."""
    path = checked_output_dir(Path(output_dir).expanduser())
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"output_dir is {output_dir!r}, which is not empty: give a new directory.")
    return path


def adapter_directory(name: str) -> Path:
    """The directory of a LoRA adapter with its weights. Raises ValueError, FileNotFoundError where it is none."""
    from elastic.model_source import check_place

    check_place(name)
    directory = Path(name).expanduser()
    if not (directory / "adapter_config.json").is_file():
        what = "is a whole model, to be used as it is" if directory.is_dir() else "is no directory: download it first"
        raise ValueError(f"model_name_or_path is {name!r}, which holds no adapter (adapter_config.json): it {what}.")
    kind = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"]
    if kind != "LORA":
        raise ValueError(f"model_name_or_path is {name!r}, an adapter of type {kind}: only LORA is merged here.")
    return directory


def export(adapter: Path, output_dir: Path, arguments: ExportArguments) -> tuple[str, int]:
    """Write the merged model; returns its base's path or hub id, and the number of parameters.

    Raises:
        ValueError, FileNotFoundError: the base model cannot be had, or cannot take the adapter.
    """
    from elastic.model_source import adapter_base, load_tokenizer

    base = adapter_base(adapter)
    tokenizer = load_tokenizer(str(adapter), None, trust_remote_code=arguments.trust_remote_code)
    model = merged_model(adapter, base, arguments)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    beside = output_dir.with_name(f".{output_dir.name}.{os.getpid()}")
    try:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        beside.replace(output_dir)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return base.path, model.num_parameters()


def merged_model(adapter: Path, base, arguments: ExportArguments):
    """The base model with the adapter in its weights."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    source = dict(revision=base.revision or "main", trust_remote_code=arguments.trust_remote_code)
    config = AutoConfig.from_pretrained(base.path, **source)
    if hasattr(config, "quantization_config"):
        raise ValueError(
            f"The base model of {str(adapter)!r}, {base.path!r}, is quantized, and its weights cannot take an adapter "
            f"without loss: put the model that it was made from into base_model_name_or_path of adapter_config.json."
        )
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=arguments.dtype, **source)
    adapted = PeftModel.from_pretrained(model, str(adapter))
    refuse_tied_head(adapted, adapter)
    return adapted.merge_and_unload(safe_merge=True)


def refuse_tied_head(adapted, adapter: Path) -> None:
    """Raises ValueError where the adapter changes one of two layers that are one tensor in the base: both would."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not adapted.config.get_text_config(decoder=True).tie_word_embeddings:
        return
    ends = {"the embedding": adapted.get_input_embeddings(), "the output layer": adapted.get_output_embeddings()}
    for name, layer in ends.items():
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
            raise ValueError(
                f"The adapter {str(adapter)!r} changes {name}, whose weights are also those of the other end of the "
                f"model (tie_word_embeddings): a merged model cannot hold it; train with other lora_target_modules."
            )


if __name__ == "__main__":
    main()
