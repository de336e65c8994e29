"""The imports point one way, as the design has it, and the top level of the checkout is what a user expects."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "elastic", "rewards", "recipes", "launch", "tests"}
# A layer may import the ones before it, through whatever other modules, and none of its own rank or after it.
LAYERS = [
    {"elastic.budget"},
    {"elastic.rollout"},
    {"elastic.engines"},
    {"elastic.trainer", "elastic.evaluate"},
    {"elastic.train"},
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in ("elastic", "rewards") for path in (ROOT / package).rglob("*.py")}


def imports(source: str, package: str) -> set[str]:
    """Every module that `source` imports, inside functions too; relative ones are relative to `package`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            submodules = members & FILES.keys()
            found |= submodules if submodules == members else submodules | {base}
    return found


def package_of(module: str) -> str:
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


IMPORTS = {module: imports(path.read_text(), package_of(module)) for module, path in FILES.items()}


def reached(module: str) -> set[str]:
    """What `module` imports, and what those of our own modules import in turn."""
    found, waiting = set(), [module]
    while waiting:
        for name in IMPORTS[waiting.pop()] - found:
            found.add(name)
            if name in IMPORTS:
                waiting.append(name)
    return found


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(modules: set[str], forbidden: set[str]) -> list[str]:
    """`A -> B` for each module inside `modules` that reaches a forbidden one outside of `modules`."""
    return [
        f"{module} -> {name}"
        for module in sorted(FILES)
        if within(module, modules)
        for name in sorted(reached(module))
        if within(name, forbidden) and not within(name, modules)
    ]


def test_finds_the_modules_and_what_they_import():
    assert len(FILES) >= 8
    assert "elastic.budget" in IMPORTS["elastic.rollout"]
    assert "math_verify" in {name.split(".")[0] for name in reached("rewards")}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import torch.nn as nn, trl", "elastic", {"torch.nn", "trl"}),
        ("def late():\n    from trl import GRPOTrainer", "elastic", {"trl"}),
        ("from elastic import budget", "elastic", {"elastic.budget"}),
        ("from elastic import budget, __version__", "elastic", {"elastic", "elastic.budget"}),
        ("from . import budget", "elastic", {"elastic.budget"}),
        ("from ..rollout import Rollout", "elastic.engines", {"elastic.rollout"}),
    ],
)
def test_reads_every_form_of_import(source, package, expected):
    assert imports(source, package) == expected


def test_an_offence_is_seen_through_another_module(monkeypatch):
    monkeypatch.setitem(IMPORTS, "elastic.budget", {"elastic.arguments"})
    monkeypatch.setitem(IMPORTS, "elastic.arguments", {"torch.nn"})
    assert offences({"elastic.budget"}, {"torch"}) == ["elastic.budget -> torch.nn"]


def test_imports_have_no_cycle():
    graph = {module: {name for name in names if name in FILES} - {module} for module, names in IMPORTS.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(FILES)


@pytest.mark.parametrize("rank", range(len(LAYERS)), ids=[" ".join(sorted(layer)) for layer in LAYERS])
def test_a_layer_imports_only_the_layers_before_it(rank):
    later = set().union(*LAYERS[rank:])
    for package in LAYERS[rank]:
        assert any(within(module, {package}) for module in FILES), f"{package} is gone: mend LAYERS"
        assert offences({package}, later) == []


def test_rewards_stand_alone():
    assert offences({"rewards"}, {"elastic", "trl", "torch"}) == []


def test_budgets_and_rollouts_need_no_torch_and_no_trl():
    assert offences({"elastic.budget", "elastic.rollout"}, {"torch", "trl"}) == []


def test_nothing_imports_an_entry_point():
    entry_points = {"elastic.train", "elastic.evaluate", "elastic.export"}
    assert entry_points <= FILES.keys()
    assert [module for module, names in IMPORTS.items() if names & entry_points - {module}] == []


def test_nothing_outside_nano_knows_nano():
    users = [module for module in FILES if not within(module, {"elastic.nano"})]
    assert [module for module in users if any(within(name, {"elastic.nano"}) for name in IMPORTS[module])] == []
    assert len(users) < len(FILES)


def test_budgets_and_rollouts_load_without_torch_and_trl():
    """What the reading of imports cannot see: a library that brings torch with it."""
    program = "import sys, elastic.rollout; sys.exit(bool({'torch', 'trl'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_top_level_is_the_users():
    if not (ROOT / ".git").exists():
        pytest.skip("only a git checkout says which files belong to it")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top_level = {name.split("/")[0] for name in listed.splitlines()}
    assert {name for name in top_level if not name.startswith(".")} == TOP_LEVEL
