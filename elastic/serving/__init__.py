"""Separate budgets for thinking and solution from a served model: a plug-in of vLLM, and the rules that it follows."""
