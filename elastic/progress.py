"""What a person sees in the terminal while training: a bar, and one line for each logged step."""

from __future__ import annotations

from tqdm.auto import tqdm
from transformers.trainer_callback import ProgressCallback

# Metric, how it is shown. The rest, some forty metrics, goes to W&B.
_SHOWN = {
    "reward": "reward {:.3f}",
    "budget/forced_rate": "forced {:.0%}",
    "budget/thinking_tokens": "thinking {:.1f}",
    "budget/solution_tokens": "solution {:.1f} tokens",
    "entropy": "entropy {:.2f}",
    "learning_rate": "lr {:.1e}",
    "time/generation_s": "rollouts {:.1f} s",
    "time/reward_s": "rewards {:.1f} s",
    "time/training_s": "update {:.1f} s",
}


class TrainingProgress(ProgressCallback):
    """ProgressCallback that writes the metrics one watches; its bar is over tokens where these end the run."""

    def __init__(self, trainer):
        super().__init__()
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if args.max_rollout_tokens is None:
            super().on_train_begin(args, state, control, **kwargs)
        elif state.is_world_process_zero:
            self.training_bar = tqdm(
                total=args.max_rollout_tokens, unit="token", unit_scale=True, dynamic_ncols=True, initial=self._done
            )

    def on_step_end(self, args, state, control, **kwargs):
        if args.max_rollout_tokens is None:
            super().on_step_end(args, state, control, **kwargs)
        elif state.is_world_process_zero:
            self.training_bar.update(self._done - self.training_bar.n)

    @property
    def _done(self) -> int:
        return min(self._trainer.rollout_tokens, self._trainer.args.max_rollout_tokens)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None:
            return
        shown = [form.format(logs[name]) for name, form in _SHOWN.items() if logs.get(name) is not None]
        if shown:
            self.training_bar.write(f"step {state.global_step}: {', '.join(shown)}")
