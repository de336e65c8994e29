"""The benchmark on vLLM still runs and prints its table; what it measures is not asserted."""

import importlib
from pathlib import Path


def test_a_quick_run_prints_a_row_for_each_side(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "bench")
    importlib.import_module("bench_vllm").main(["--quick", "--case", "t = s"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    _, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert [row[2] for row in rows] == ["requests", "barrier", "plain", "bare", "one pass"]
    assert rows[0][4] == rows[1][4] == rows[2][4]
    assert all(float(figure) > 0 for row in rows for figure in row[5:])
