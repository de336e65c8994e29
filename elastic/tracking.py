"""Weights & Biases: offline when there is no key, and never the reason that a run fails."""

from __future__ import annotations

import logging
import os

import wandb

logger = logging.getLogger(__name__)


def start_wandb(
    report_to: list[str], *, project: str | None, entity: str | None, name: str | None, folder: str
) -> None:
    """Start the W&B run that TRL's trainer then logs to; call it on the main process.

    Without an API key and without WANDB_MODE the run is kept offline, under `folder`/wandb. A run that cannot be
    started online goes on offline, and one that cannot be started at all is not tracked; both are said.
    """
    if "wandb" not in report_to:
        return
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    settings = {
        "project": project or os.environ.get("WANDB_PROJECT", "elastic"),
        "entity": entity or os.environ.get("WANDB_ENTITY"),
        "name": name,
        "dir": os.environ.get("WANDB_DIR", folder),
    }
    for attempt in dict.fromkeys((mode, "offline", "disabled")):
        try:
            wandb.init(mode=attempt, **settings)
            return
        except (wandb.Error, OSError) as error:
            logger.warning("W&B could not start in mode %s (%s); the run goes on without it.", attempt, error)
