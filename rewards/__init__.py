"""Verifiable rewards, in TRL's calling convention; independent of elastic, trl and torch.

A reward is called with a batch and gives one score a row:

    REWARDS["math"](completions=[...], answer=[...], solution_text=[...], **columns) -> list[float | None]

0.0 is a wrong answer, None a row that cannot be graded, and a grader that is broken raises. To add one, write a file
with a function of that signature and name it here.
"""

from rewards.exact_reward import exact_reward
from rewards.math_reward import math_reward

REWARDS = {"math": math_reward, "exact": exact_reward}
