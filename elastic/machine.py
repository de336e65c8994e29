"""Where a run takes place, as a launch file says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

_KINDS = ("NO", "MULTI_GPU", "MULTI_CPU", "DEEPSPEED")
_OFFLOADS = {"none": False, "cpu": True}


@dataclass(frozen=True)
class Machine:
    """The processes of a run, one a GPU, and what DeepSpeed splits between them.

    Attributes:
        zero_stage: 1 splits the optimizer, 2 the gradients as well, 3 the weights as well; 0 without DeepSpeed.
        offload_optimizer, offload_parameters: whether they lie in the node's main memory.
    """

    name: str
    processes: int
    nodes: int
    zero_stage: int
    offload_optimizer: bool = False
    offload_parameters: bool = False

    def __str__(self) -> str:
        gpus = f"{self.processes} GPU{'s' * (self.processes > 1)} on {self.nodes} node{'s' * (self.nodes > 1)}"
        if self.zero_stage == 0:
            return f"{gpus}, {'DDP' if self.processes > 1 else 'without DeepSpeed'}"
        offload = " with offload" if self.offload_optimizer or self.offload_parameters else ""
        return f"{gpus}, ZeRO-{self.zero_stage}{offload}"


def read_machine(path: str, processes: int | None = None) -> Machine:
    """What a launch file of accelerate says, or a DeepSpeed JSON, which leaves `processes` to its launcher.

    Raises:
        ValueError: there is no such file, or it is neither of them.
    """
    fields = _read(path)
    if "zero_optimization" in fields:
        return _from_deepspeed(path, fields, processes)
    if "num_processes" not in fields:
        raise ValueError(
            f"launch is {path!r}, which names neither num_processes nor zero_optimization: give a file of launch/."
        )
    kind = fields.get("distributed_type", "NO")
    if kind not in _KINDS:
        raise ValueError(f"distributed_type in {path!r} is {kind!r}, which the plan does not know: give {_KINDS[-1]}.")
    given = _count(path, fields, "num_processes")
    processes, nodes = processes or given, _count(path, fields, "num_machines", 1)
    if processes % nodes:
        raise ValueError(f"num_processes for {path!r} is {processes}, on {nodes} nodes: give as many to each node.")
    if kind != "DEEPSPEED":
        return Machine(path, processes, nodes, zero_stage=0)
    deepspeed = _group(path, fields, "deepspeed_config")
    if "deepspeed_config_file" in deepspeed:
        file = str(deepspeed["deepspeed_config_file"])
        return replace(_from_deepspeed(file, _read(file), processes), name=path, nodes=nodes)
    return Machine(
        path,
        processes,
        nodes,
        zero_stage=_stage(path, deepspeed.get("zero_stage", 2)),
        offload_optimizer=_offloads(
            path, "offload_optimizer_device", deepspeed.get("offload_optimizer_device", "none")
        ),
        offload_parameters=_offloads(path, "offload_param_device", deepspeed.get("offload_param_device", "none")),
    )


def _read(path: str) -> Mapping[str, Any]:
    if not Path(path).is_file():
        raise ValueError(f"launch is {path!r}, and there is no such file: give a file of launch/.")
    text = Path(path).read_text()
    try:
        fields = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"launch is {path!r}, which cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(fields, dict):
        raise ValueError(f"launch is {path!r}, which holds no fields: give a file of launch/.")
    return fields


def _from_deepspeed(path: str, fields: Mapping[str, Any], processes: int | None) -> Machine:
    if processes is None:
        raise ValueError(f"num_processes is not set, and {path!r} does not say it: give the number of GPUs.")
    zero = _group(path, fields, "zero_optimization")
    devices = {name: _group(path, zero, name).get("device", "none") for name in ("offload_optimizer", "offload_param")}
    return Machine(
        name=path,
        processes=processes,
        nodes=1,
        zero_stage=_stage(path, zero.get("stage", 0)),
        offload_optimizer=_offloads(path, "offload_optimizer", devices["offload_optimizer"]),
        offload_parameters=_offloads(path, "offload_param", devices["offload_param"]),
    )


def _group(path: str, fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The fields under `name`, none where it is absent."""
    group = fields.get(name, {})
    if not isinstance(group, dict):
        raise ValueError(f"{name} in {path!r} is {group!r}: give its fields, or leave it out.")
    return group


def _count(path: str, fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    count = fields.get(name, default)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} in {path!r} is {count!r}: give a whole number of 1 or more.")
    return count


def _stage(path: str, stage: object) -> int:
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise ValueError(f"the ZeRO stage in {path!r} is {stage!r}: give 0, 1, 2 or 3.")
    return stage


def _offloads(path: str, name: str, device: object) -> bool:
    if not isinstance(device, str) or device not in _OFFLOADS:
        raise ValueError(f"{name} in {path!r} is {device!r}, which the plan does not know: give none or cpu.")
    return _OFFLOADS[device]
