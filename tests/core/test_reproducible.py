"""What a seed, a state and several processes promise, without a toolbox."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_rows import some_classes

from det_seg_agent import ConfigError, Request, Selection, Selector, StateError, Strategy
from det_seg_agent.schedule import Schedule
from det_seg_agent.seeding import derive_seed, generator
from det_seg_agent.strategies import InfoBatch, strategy_names

PASSES, SAMPLES = 8, 1000
PROBE = Path(__file__).parents[1] / "helpers/core_probe.py"


# Random streams -------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_streams_differ_in_the_bits_that_torch_and_numpy_use() -> None:
    seeds = [
        derive_seed(seed, "process", p, rank, worker)
        for seed in (0, 1, 42, 1000)
        for p in range(400)
        for rank in range(8)
        for worker in range(8)
    ]
    seeds += [
        derive_seed(seed, purpose, p) for seed in range(10) for purpose in ("random", "order") for p in range(300)
    ]
    low = np.array([value % 2**32 for value in seeds], np.uint64)
    assert len(seeds) > 100_000 and len(set(seeds)) == len(seeds)
    assert len(low) - len(np.unique(low)) <= 10, "chance alone gives one or two pairs"
    ones = [float((low >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(32)]
    assert max(abs(share - 0.5) for share in ones) < 0.01


def test_torch_reads_the_low_bits_of_a_seed_alone() -> None:
    """Why the test above looks at them."""
    one, other = (torch.Generator().manual_seed(value) for value in (5, 5 + (7 << 32)))
    assert torch.equal(torch.randperm(50, generator=one), torch.randperm(50, generator=other))


def test_random_selections_of_a_thousand_passes_differ() -> None:
    selector = Selector(64, 1000, strategy="random", ratio=0.5, warmup=0, final_full=0)
    chosen = {tuple(selector.begin_pass(p).indices.tolist()) for p in range(1000)}
    assert len(chosen) == 1000


def test_agents_of_a_thousand_seeds_differ() -> None:
    first = {float(torch.rand((), generator=generator(s, "phases"), dtype=torch.float64)) for s in range(1000)}
    assert len(first) == 1000


# Ties and weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data_agent_paper", "loss", "entropy", "agent", "even", "afss"])
def test_samples_that_are_alike_are_drawn_whatever_their_index(name: str) -> None:
    """Nothing is known before the first pass: a data set sorted by class must not lose its last classes."""
    counts = torch.zeros(10)
    for seed in range(40):
        given = {"strategy": name, "ratio": 0.4, "warmup": 0, "seed": seed}
        selector = Selector(100, 4, applies_weights=True, **given)
        counts += torch.bincount(selector.begin_pass(0).indices // 10, minlength=10)
    assert counts.min() > 120 and counts.max() < 200, "160 are expected of each tenth"


class Weighted(Strategy):
    """Selects the first samples with weights that a test sets."""

    weighs = True
    given: torch.Tensor | None = None

    def select(self, request: Request) -> Selection:
        """Return the first ones."""
        return Selection(torch.arange(request.count), self.given)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"gives \(1,\) weights for 5 samples; give one for each"),
        ([1, 1, float("nan"), 1, 1], "gives sample 2 the weight nan"),
        ([1, float("inf"), 1, 1, 1], "gives sample 1 the weight inf"),
        ([1, 1, 1, 1, 0], r"gives sample 4 the weight 0.0; weights are finite and above 0"),
        ([-1, 1, 1, 1, 1], "gives sample 0 the weight -1.0"),
    ],
)
def test_weights_that_would_spoil_losses_are_refused(weights: list[float], message: str) -> None:
    Weighted.given = torch.tensor(weights)
    selector = Selector(10, 4, strategy=f"{__name__}:Weighted", ratio=0.5, applies_weights=True)
    with pytest.raises(ConfigError, match=message):
        selector.begin_pass(1)


@pytest.mark.parametrize("given", [{"strategy": "infobatch"}, {"strategy": "data_agent_paper"}])
def test_a_loop_that_applies_no_weights_is_refused_strategies_that_need_them(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"weights_of\(index\)` and pass applies_weights=True"):
        Selector(10, 4, ratio=0.5, **given)
    Selector(10, 4, ratio=0.5, applies_weights=True, **given)


def test_weights_belong_to_samples() -> None:
    Weighted.given = torch.tensor([3.0, 5.0])
    selector = Selector(10, 4, strategy=f"{__name__}:Weighted", ratio=0.2, applies_weights=True)
    assert selector.weights_of(torch.tensor([4, 1])).tolist() == [1, 1]
    selector.begin_pass(1)
    assert selector.weights_of(torch.tensor([1, 0, 9, 1])).tolist() == [5, 3, 1, 5]


# Settings without effect ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"period": 6}, "period belongs to schedule=oscillating"),
        ({"strategy": "data_agent_paper", "options": {"floor": 0.2}}, "agent.options.floor"),
        ({"strategy": "random", "options": {"floor": 0.2}}, "agent.options.floor"),
        ({"strategy": "infobatch", "options": {"prune": 0.3}}, "prune=0.3 has no effect unless native=true"),
        ({"options": {"memory": 0.999}}, "memory=0.999"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selector(20, 4, applies_weights=True, **given)


@pytest.mark.parametrize("passes", [10, 90, 97, 300])
def test_the_full_ending_has_the_passes_that_its_share_says(passes: int) -> None:
    for percent in range(101):
        last = passes - Schedule(final_full=percent / 100).first_final_pass(passes)
        assert last == -(-passes * percent // 100), (passes, percent)


# States ---------------------------------------------------------------------------------------------------------------


def observe(selector: Selector, p: int, batch: int = 16, skip: int = 0) -> None:
    """Give the selector signals of the pass's samples, from the batch `skip` on."""
    g = torch.Generator().manual_seed(5)
    features = torch.randn(len(selector), 40, generator=g)
    loss, entropy = features[:, 0].exp(), features[:, 1].sigmoid()
    for i, rows in enumerate(torch.tensor(list(selector.sampler)).split(batch)):
        if i >= skip:
            drift = 1 + 5 / (1 + i + p)
            more = {"sufficiency": 1 - entropy[rows], "agreement": -loss[rows], "class_counts": torch.ones(3, 5)}
            selector.observe(rows, drift * loss[rows], entropy[rows], features[rows], **more)


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ({"ratio": 0.9}, {"ratio": 0.5}, r"made with agent.ratio=0.9, and this run has agent.ratio=0.5"),
        ({"warmup": 2}, {}, "agent.warmup=2"),
        ({"schedule": "oscillating"}, {}, "agent.schedule='oscillating'"),
        ({"passes": 4}, {"passes": 40}, "total_passes=4, and this run has total_passes=40"),
        ({"strategy": "data_agent_paper"}, {}, "of strategy 'data_agent_paper', this run has 'agent'"),
    ],
)
def test_a_state_of_another_schedule_is_refused(then: dict[str, Any], now: dict[str, Any], message: str) -> None:
    def make(given: dict[str, Any]) -> Selector:
        given = {"passes": 8, **given}
        return Selector(20, given.pop("passes"), applies_weights=True, **given)

    state = make(then).state_dict()
    with pytest.raises(StateError, match=message):
        make(now).load_state_dict(state)
    make(then).load_state_dict(state)
    if "passes" in then:
        make(now).load_state_dict(state, other_length=True)


def test_a_state_of_an_older_version_is_refused() -> None:
    state = Selector(20, 8).state_dict()
    for other in ({**state, "format": 0}, {key: value for key, value in state.items() if key != "format"}):
        with pytest.raises(StateError, match="made by another version of det_seg_agent. Resume with that version"):
            Selector(20, 8).load_state_dict(other)


@pytest.mark.parametrize("name", strategy_names())
def test_a_state_within_a_pass_holds_what_was_seen(name: str) -> None:
    def make() -> Selector:
        return Selector(120, 8, strategy=name, ratio=0.4, applies_weights=True, classes=some_classes(120))

    whole = make()
    for p in range(4):
        whole.begin_pass(p)
        observe(whole, p)
        if p == 3:
            whole.gather()  # as a run that saves after its last batch does
        whole.end_pass()
    cut = make()
    for p in range(3):
        cut.begin_pass(p)
        observe(cut, p)
        cut.end_pass()
    cut.begin_pass(3)
    observe(cut, 3)
    cut.gather()
    file = io.BytesIO()
    torch.save(cut.state_dict(), file)
    file.seek(0)
    again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    again.end_pass()
    assert torch.equal(again.begin_pass(4).indices, whole.begin_pass(4).indices)
    assert again.history == whole.history or name != "data_agent_paper", "NaN is unlike itself"


def test_a_pass_without_finite_signals_reports_nothing_of_the_pass_before() -> None:
    selector = Selector(20, 4, ratio=0.5)
    selector.begin_pass(0)
    observe(selector, 0)
    assert selector.end_pass().balance > 0
    selector.begin_pass(1)
    nan = torch.full((10,), float("nan"))
    selector.observe(selector.selection.indices, nan, nan, torch.zeros(10, 40))
    report = selector.end_pass()
    assert report.dropped == 10 and report.balance != report.balance and report.reward != report.reward


def test_an_image_without_a_sufficiency_leaves_that_of_its_samples_other_images() -> None:
    selector = Selector(4, 4, ratio=0.5)
    selector.begin_pass(0)
    enough = torch.tensor([0.5, float("nan"), float("nan")])
    selector.observe(torch.tensor([3, 3, 1]), torch.ones(3), torch.ones(3), torch.ones(3, 2), sufficiency=enough)
    selector.end_pass()
    assert selector.table.sufficiency[3] == 0.5 and bool(selector.table.sufficiency[[0, 1, 2]].isnan().all())


def test_native_rules_take_what_they_take() -> None:
    for name, expected in (("infobatch", 75), ("afss", 100)):
        selector = Selector(100, 8, strategy=name, options={"native": True}, applies_weights=True, ratio=0.1)
        selector.begin_pass(0)
        index, loss = torch.arange(100), torch.cat([torch.zeros(50), torch.ones(50)])
        selector.observe(index, loss, loss, torch.zeros(100, 1), sufficiency=torch.zeros(100))
        selector.end_pass()
        chosen = selector.begin_pass(1)
        assert not selector.strategy.fixed_budget and len(chosen) == expected
    assert isinstance(Selector(9, 4, strategy="infobatch", applies_weights=True).strategy, InfoBatch)


# Threads and processes ------------------------------------------------------------------------------------------------


def selections(threads: int = 1, **environment: str) -> str:
    """Return a hash of the selections of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(PROBE), str(SAMPLES), str(PASSES)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_selections_do_not_depend_on_the_number_of_threads() -> None:
    assert selections(1) == selections(2)


def probe(tmp_path: Path, processes: int, *words: str, **environment: str) -> list[str]:
    """Run the probe in several processes; return the lines that they print."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launcher, str(PROBE), *words], env={**os.environ, **environment}, capture_output=True,
        text=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_unlike_processes_train_on_one_selection(tmp_path: Path) -> None:
    """Rank 1 has other threads and rank 2 another instruction set: each sample is trained on once, by one rank."""
    lines = probe(tmp_path, 3, str(SAMPLES), str(PASSES), OTHERS="OMP_NUM_THREADS=2;ATEN_CPU_CAPABILITY=default")
    assert [line for line in lines if line.startswith("twice")] == ["twice " + " ".join(["0"] * PASSES)]


DIFFERING = {
    "seed": "pass 1: rank 1 has agent.seed=1, rank 0 has agent.seed=0",
    "samples": "pass 1: rank 1 has samples=",
    "selection": "end of pass 2: rank 1 has selection=",
    "fails": "rank 0 cannot select",
    "size": "the saved state is of a data set of 21 images, this one has 20",
    "alone": "world_size=1, and the process group has 2 processes",
}


@pytest.mark.slow
def test_processes_that_differ_stop_all_with_what_differs(tmp_path: Path) -> None:
    """One after another: no rank is left waiting, or the next would not end alike."""
    lines = probe(tmp_path, 2, "20", "4", *DIFFERING)
    for what, message in DIFFERING.items():
        for rank in (0, 1):
            [line] = [line for line in lines if line.startswith(f"{what} on rank {rank}: ")]
            assert message in line
    assert len(lines) == 2 * len(DIFFERING), "and no run came to its end"
