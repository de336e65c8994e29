"""What the tests against real vLLM on a CPU need; without vLLM none of them is collected."""

import importlib.util
import os

import pytest

# One process and one thread, no cores of its own, a GiB of keys and values.
for _name, _value in (
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_LOGGING_LEVEL", "ERROR"),
):
    os.environ.setdefault(_name, _value)

if importlib.util.find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A random Qwen3 with nano's tokenizer, its heads as wide as vLLM's CPU attention takes."""
    from vllm_models import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def llm(model_dir):
    from vllm_models import load_llm

    return load_llm(model_dir)
