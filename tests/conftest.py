"""What every test module needs before it imports torch or a hub client: one thread each, and no network."""

import os

for _name, _value in (
    ("OMP_NUM_THREADS", "1"),
    ("OMP_WAIT_POLICY", "passive"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("HF_HUB_OFFLINE", "1"),
    ("HF_DATASETS_OFFLINE", "1"),
    ("TRANSFORMERS_VERBOSITY", "error"),
    ("WANDB_MODE", "offline"),
):
    os.environ.setdefault(_name, _value)
