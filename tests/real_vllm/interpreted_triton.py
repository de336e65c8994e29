"""Imported before vLLM, lets its V2 model runner run on a CPU: by Triton's interpreter, for want of a CPU backend."""

import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"

from triton.backends import Backend, backends


class Driver:
    @staticmethod
    def is_active() -> bool:
        return True


backends["cpu"] = Backend(compiler=None, driver=Driver)
