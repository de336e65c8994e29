"""Which model an evaluation measures, and what samples its rollouts. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

_VLLM_FIELDS = (
    *("vllm_tensor_parallel_size", "vllm_gpu_memory_utilization", "vllm_max_model_length"),
    *("vllm_one_pass", "vllm_enforce_eager"),
)


@dataclass
class EvaluatedModelArguments:
    """Which model is measured, and how it is loaded."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A model directory (a PEFT adapter's too), or a hub id."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a hub id."})
    model_label: str | None = field(
        default=None, metadata={"help": "The model's name in tables and plots; unset, the last part of its path."}
    )
    solution_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Another model that samples the solutions, after the thinking of model_name_or_path; it needs the "
            "same tokenizer, and the transformers engine."
        },
    )
    solution_model_revision: str = field(default="main", metadata={"help": "Its branch, tag or commit."})
    solution_model_label: str | None = field(
        default=None, metadata={"help": "Its name in tables and plots; unset, the last part of its path."}
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Precision of the weights; auto is the one that they are stored in."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention code, such as sdpa or eager; unset, transformers chooses."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with the model."})

    def check_models(self, engine: str) -> None:
        """Raises ValueError where the second model's fields do not go together, or not with the engine."""
        if self.solution_model_name_or_path is not None and engine != "transformers":
            raise ValueError(
                f"solution_model_name_or_path is {self.solution_model_name_or_path!r}, and engine is {engine}: only "
                f"the transformers engine has two models, so leave engine out."
            )
        if self.solution_model_name_or_path is None:
            for name in ("solution_model_label", "solution_model_revision"):
                if getattr(self, name) != getattr(EvaluatedModelArguments, name):
                    raise ValueError(
                        f"{name} is {getattr(self, name)!r}, and solution_model_name_or_path is not set: give it, or "
                        f"leave {name} out."
                    )


@dataclass
class EngineArguments:
    """What samples the rollouts."""

    engine: Literal["transformers", "vllm", "server"] = field(
        default="transformers",
        metadata={
            "help": "transformers: in this process, on any machine. vllm: vLLM in this process. server: the server at "
            "base_url, vLLM's or any that has the OpenAI completions protocol."
        },
    )
    base_url: str | None = field(
        default=None,
        metadata={
            "help": "Of the server, such as http://127.0.0.1:8000. model_name_or_path gives the tokenizer then, and "
            "the context. The key, if it wants one, is read from OPENAI_API_KEY."
        },
    )
    served_model_name: str | None = field(
        default=None, metadata={"help": "The model's name on the server; unset, the first that the server names."}
    )
    max_concurrent_requests: int = field(
        default=64, metadata={"help": "Requests that wait for the server at the same time."}
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs that share one model of vLLM."})
    vllm_gpu_memory_utilization: float = field(
        default=0.9, metadata={"help": "The share of the GPU's memory that vLLM takes, from 0 to 1."}
    )
    vllm_max_model_length: int | None = field(
        default=None, metadata={"help": "Longest prompt and rollout for vLLM, in tokens; unset, the model's context."}
    )
    vllm_one_pass: bool = field(
        default=False,
        metadata={
            "help": "Let vLLM close the thinking by its own thinking_token_budget, one request serving both phases, if "
            "a check at the start finds that this gives the same tokens. On a CPU it was slower."
        },
    )
    vllm_enforce_eager: bool = field(
        default=False, metadata={"help": "Do without vLLM's compilation and CUDA graphs: starts sooner, runs slower."}
    )

    def check_engine(self) -> None:
        """Raises ValueError where these fields do not go together."""
        server = self.engine == "server"
        if server and not self.base_url:
            raise ValueError("engine is server, and base_url is not set: give the server's address as --base_url.")
        if server and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {self.base_url!r}: give an address such as http://127.0.0.1:8000.")
        if (self.base_url or self.served_model_name) and not server:
            name = "base_url" if self.base_url else "served_model_name"
            raise ValueError(f"{name} is set, and engine is {self.engine}: set --engine server, or leave it out.")
        if self.engine != "vllm":
            for name in _VLLM_FIELDS:
                if getattr(self, name) != getattr(EngineArguments, name):
                    raise ValueError(f"{name} is {getattr(self, name)}, and engine is {self.engine}: leave it out.")
        if not 0 < self.vllm_gpu_memory_utilization <= 1:
            raise ValueError(
                f"vllm_gpu_memory_utilization is {self.vllm_gpu_memory_utilization}: give a share above 0, at most 1."
            )
