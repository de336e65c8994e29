"""How estimates and budgets stand in the tables of a comparison."""

from __future__ import annotations

from elastic.budget import UNLIMITED
from elastic.compare.statistics import Estimate
from elastic.tables import ABSENT


def budget_label(budget: int, t_star: int | None = None) -> str:
    return "no limit" if budget == UNLIMITED else f"{budget}{' (t*)' * (budget == t_star)}"


def marked(found: Estimate | None) -> str:
    mark = "" if not found or found.low is None or found.low <= 0 <= found.high else "▼" if found.high < 0 else "▲"
    return f"{difference(found)} {mark}".rstrip()


def rate(found: Estimate | None) -> str:
    return _text(found, "{:.3f}", "{:.2f}")


def difference(found: Estimate | None, digits: int = 3) -> str:
    return _text(found, f"{{:+.{digits}f}}")


def count_text(found: Estimate | None, digits: int = 0) -> str:
    return _text(found, f"{{:,.{digits}f}}")


def _text(found: Estimate | None, form: str, end_form: str = "") -> str:
    """The mean and, unless they are the same, the ends of its interval, by `end_form` if it is another than `form`."""
    end_form = end_form or form
    if found is None:
        return ABSENT
    if found.low is None or found.low == found.high == found.mean:
        return form.format(found.mean)
    return f"{form.format(found.mean)} [{end_form.format(found.low)}, {end_form.format(found.high)}]"
