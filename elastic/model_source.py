"""Where a model comes from, and a fingerprint of everything in it that changes what it samples."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

# Not in it: optimizer states, logs and training arguments, which lie beside a trained model and change nothing.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
_BESIDE_WEIGHTS = (
    *("config.json", "generation_config.json", "adapter_config.json", "*.index.json", "*.py"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.jinja"),
)


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded.

    Attributes:
        path: what `from_pretrained` takes.
        revision: the commit of a hub id; None for a directory.
        config_path, config_revision: the same for config.json, which a PEFT adapter leaves to its base model.
        fingerprint: 16 hexadecimal digits of the files' contents, or of the commit of a hub id.
    """

    path: str
    revision: str | None
    config_path: str
    config_revision: str | None
    fingerprint: str


def find_model(model_name_or_path: str, revision: str = "main", *, weights: bool = True) -> ModelSource:
    """The model in a directory, or on the hub as far as it is cached or reachable; no weights are loaded.

    Args:
        weights: whether a directory has to hold them; a server may have loaded them elsewhere.

    Raises:
        ValueError, FileNotFoundError: one sentence for what is missing.
    """
    directory = Path(model_name_or_path).expanduser()
    check_place(model_name_or_path, weights=weights)
    if directory.is_dir():
        return _local_source(directory)
    commit = _hub_commit(model_name_or_path, revision)
    return ModelSource(model_name_or_path, commit, model_name_or_path, commit, commit[:16])


def check_place(model_name_or_path: str, *, weights: bool = True) -> None:
    """Check that a directory holds a model or an adapter; whether a hub id exists is the hub's to say.

    Raises:
        ValueError, FileNotFoundError: one sentence for what is missing.
    """
    directory = Path(model_name_or_path).expanduser()
    if not directory.is_dir():
        if not _may_be_hub_id(model_name_or_path):
            raise FileNotFoundError(
                f"model_name_or_path is {model_name_or_path!r}, and there is no such directory: correct the path."
            )
        return
    if not any((directory / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(
            f"model_name_or_path is {model_name_or_path!r}, which holds neither config.json nor adapter_config.json: "
            f"give the directory of a saved model."
        )
    if weights and not any(any(directory.glob(pattern)) for pattern in _WEIGHTS):
        raise ValueError(
            f"model_name_or_path is {model_name_or_path!r}, which holds no weights (*.safetensors or *.bin): give the "
            f"directory of a saved model."
        )


def adapter_base(directory: Path) -> ModelSource:
    """The model that the adapter in `directory` was trained on.

    Raises:
        ValueError: one sentence for why it cannot be had.
    """
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    name = config["base_model_name_or_path"]
    try:
        if name is None:
            raise ValueError("it names none.")
        return find_model(name, config["revision"] or "main")
    except (ValueError, FileNotFoundError) as error:
        why = str(error).removeprefix("model_name_or_path is ")
        raise ValueError(
            f"The base model of the adapter in {str(directory)!r} (base_model_name_or_path in adapter_config.json) is "
            f"not to be had: {why}"
        ) from None


def load_tokenizer(name: str, revision: str | None, *, trust_remote_code: bool, **options):
    """The tokenizer of a model. Raises ValueError when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"model_name_or_path is {name!r}, whose tokenizer cannot be loaded: {why}") from None


def _local_source(directory: Path) -> ModelSource:
    weights = {path for pattern in _WEIGHTS for path in directory.glob(pattern)}
    files = weights | {path for pattern in _BESIDE_WEIGHTS for path in directory.glob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    if (directory / "config.json").is_file():
        return ModelSource(str(directory), None, str(directory), None, digest.hexdigest()[:16])
    base = adapter_base(directory)
    digest.update(base.fingerprint.encode())
    return ModelSource(str(directory), None, base.config_path, base.config_revision, digest.hexdigest()[:16])


def _may_be_hub_id(name: str) -> bool:
    """Whether `name` could be `owner/model` on the hub: not where its first part is a local directory."""
    parts = name.split("/")
    return (
        len(parts) <= 2
        and all(parts)
        and not name.startswith((".", "~"))
        and not (parts[1:] and Path(parts[0]).is_dir())
    )


def _hub_commit(name: str, revision: str) -> str:
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
    except OSError as error:
        raise ValueError(
            f"model_name_or_path is {name!r} (revision {revision!r}), which is no directory and not to be had from the "
            f"hub: {' '.join(str(error).split())}"
        ) from None
    if commit is None:
        raise ValueError(f"The hub names no commit for {name!r}: download the model, and give its directory.")
    return commit
