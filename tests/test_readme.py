"""The README's tables of the comparison are those that elastic.compare wrote, cell for cell."""

from pathlib import Path

import pytest
import yaml
from markdown_rows import rows

ROOT = Path(__file__).parents[1]
TASKS = ("nano", "paths")
README = (ROOT / "README.md").read_text()
WRITTEN = {task: (ROOT / "recipes" / "compare" / f"{task}.md").read_text() for task in TASKS}


def plain(cell: str | None) -> str:
    """Without the marks that the README explains nowhere."""
    return (cell or "–").replace("*", "").rstrip(" ▲▼")


@pytest.mark.parametrize("task", TASKS)
def test_the_levels_are_those_that_were_written(task):
    shown = rows(README, f"{task.capitalize()}:\n\n|")
    levels, nowhere = (rows(WRITTEN[task], heading) for heading in ("# Comparison", "**Nowhere below"))
    written = {name: row | nowhere.get(name, {}) for name, row in levels.items()}
    assert list(shown) == list(written)
    columns = {column for row in written.values() for column in row}
    for name, row in shown.items():
        assert row.keys() <= columns
        assert row == {column: plain(written[name].get(column)) for column in row}


def test_the_costs_are_those_that_were_written():
    """Each ratio to grpo is in the column after its number."""
    shown = rows(README, "**What a step costs**, as multiples")
    numbers = ("tokens an update", "CPU-seconds an update", "CPU-seconds per 1000 tokens")
    costs = {task: ratios(WRITTEN[task], numbers) for task in TASKS}
    assert list(shown) == list(costs["nano"] | costs["paths"])
    for name, row in shown.items():
        assert row == {"method": name} | {
            f"{task}: {number}": costs[task].get(name, {}).get(number, "–") for task in TASKS for number in numbers
        }


def ratios(written: str, numbers: tuple[str, ...]) -> dict[str, dict[str, str]]:
    table = written[written.index("## What a step costs") :].split("\n\n")[1].splitlines()
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    places = {number: header.index(number) + 1 for number in numbers}
    assert all(header[place] == "× grpo" for place in places.values())
    return {row[0]: {number: row[place] for number, place in places.items()} for row in body}


@pytest.mark.parametrize("task", TASKS)
def test_every_method_of_the_recipe_was_run_with_its_seeds_and_tokens(task):
    recipe = yaml.safe_load((ROOT / "recipes" / "compare" / f"{task}.yaml").read_text())
    levels = rows(WRITTEN[task], "# Comparison")
    assert list(levels) == ["base", *recipe["methods"]]
    assert {row["seeds"] for row in levels.values()} == {str(len(recipe["seeds"]))}
    head = WRITTEN[task][: WRITTEN[task].index("|")]
    assert f"seeds {', '.join(map(str, recipe['seeds']))}; " in head
    assert f"each training samples {recipe['rollout_tokens']:,} rollout tokens" in head
