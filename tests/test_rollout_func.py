"""What a process samples where several share one vLLM, and when that sleeps; the rest of it is tested in training."""

from types import SimpleNamespace

import pytest

from elastic import rollout_func
from elastic.budget import Budget

ROWS = 3


class Engine:
    """Gives (prompt, budget, stream) in place of each rollout, the last row's first."""

    def sampled(self, prompts, budgets, *, streams, on_rollout, on_step):
        rollouts = list(zip(map(tuple, prompts), budgets, streams, strict=True))
        for row in reversed(range(len(rollouts))):
            on_rollout(row, rollouts[row])
        self.on_step = on_step
        return rollouts


def fake_trainer(process, group, mode="colocate"):
    return SimpleNamespace(
        accelerator=SimpleNamespace(process_index=process),
        use_vllm=True,
        vllm_mode=mode,
        vllm_generation=SimpleNamespace(tensor_parallel_size=group, tp_group="group"),
        sampled=Engine.sampled,
        stop=SimpleNamespace(check="check"),
    )


def own_rows(process):
    """The prompts and budgets of a process: each row names its process and place."""
    return [[process, row] for row in range(ROWS)], [Budget(process, row) for row in range(ROWS)]


@pytest.mark.parametrize(("mode", "group"), [("colocate", 1), ("colocate", 2), ("colocate", 4), ("server", 2)])
def test_processes_that_share_a_model_sample_the_rows_of_all_and_keep_their_own(monkeypatch, mode, group):
    gathered = []

    def gather(process_group, size, *columns):
        """As `all_gather_object` would, in the order of the processes of the group."""
        first = process // size * size
        parts = [own_rows(first + member) for member in range(size)]
        gathered.append(columns == own_rows(process))
        return [[item for part in parts for item in part[place]] for place in range(2)]

    monkeypatch.setattr(rollout_func, "_gathered", gather)
    streams = []
    for process in range(4):
        told, engine = {}, Engine()
        trainer = fake_trainer(process, group, mode)
        rollouts = rollout_func._generate(engine, trainer, *own_rows(process), told.__setitem__)
        assert [rollout[0] for rollout in rollouts] == [(process, row) for row in range(ROWS)]
        assert [rollout[1] for rollout in rollouts] == [Budget(process, row) for row in range(ROWS)]
        assert told == dict(enumerate(rollouts))
        streams += [rollout[2] for rollout in rollouts]
        alone = group == 1 or mode == "server"
        assert engine.on_step == ("check" if alone else None)
    assert streams == list(range(4 * ROWS))
    assert gathered == ([] if alone else [True] * 4)


class Generation:
    """TRL's VLLMGeneration, of which it notes what is called."""

    def __init__(self, enable_sleep_mode, sleeping):
        self.enable_sleep_mode, self._llm_weights_sleeping = enable_sleep_mode, sleeping
        self.called = []
        self.llm = SimpleNamespace(
            wake_up=lambda tags: self.called.append(f"wake {tags[0]}"),
            sleep=lambda level: self.called.append(f"sleep {level}"),
        )

    def sync_weights(self):
        self.called.append("sync")
        self._llm_weights_sleeping = False


@pytest.mark.parametrize(
    ("mode", "sleeping", "called"),
    [
        (False, False, ["sampled"]),
        (True, False, ["wake kv_cache", "sampled", "sleep 2"]),
        (True, True, ["sync", "wake kv_cache", "sampled", "sleep 2"]),
    ],
)
def test_vllm_is_awake_while_it_samples(mode, sleeping, called):
    generation = Generation(mode, sleeping)
    with rollout_func._awake(generation):
        generation.called.append("sampled")
    assert generation.called == called and generation._llm_weights_sleeping == mode
    with pytest.raises(KeyError), rollout_func._awake(generation):
        raise KeyError
    assert generation.called[-1] == called[-1] or not mode
