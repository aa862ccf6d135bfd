"""Schedule, sampler, rewards, strategies, agent and state, without a toolbox."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from class_rows import some_classes
from cuda_runs import needs_cuda
from signal_rows import sample_signals

from det_seg_agent import Selection, SelectionSampler, Selector, Strategy, register
from det_seg_agent.errors import StateError
from det_seg_agent.features import Projector
from det_seg_agent.reporting.trace import Trace, read
from det_seg_agent.schedule import Schedule
from det_seg_agent.seeding import random_state, set_random_state
from det_seg_agent.signals import SignalBuffer
from det_seg_agent.strategies import Agent, Request, base, strategy_names
from det_seg_agent.strategies.data_agent.options import AgentOptions
from det_seg_agent.strategies.data_agent.ppo import gae
from det_seg_agent.strategies.data_agent.reward import (
    RunningNorm,
    balance,
    paper_difficulty,
    quality,
    rank_order,
    reward,
    robust_scale,
)
from det_seg_agent.strategies.data_agent.state import Levels
from det_seg_agent.strategies.data_agent_paper import Rows
from det_seg_agent.strategies.weights_to_selection import RoundRobin, rates
from det_seg_agent.sums import Drift, SampleSums
from det_seg_agent.table import ScoreTable


def feed(
    selector: Selector, features: torch.Tensor, loss: torch.Tensor, entropy: torch.Tensor, batch: int = 16
) -> None:
    for rows in torch.tensor(list(selector.sampler)).split(batch):
        enough = (1 - entropy[rows]).clamp(0, 1)
        selector.observe(rows, loss[rows], entropy[rows], features[rows], sufficiency=enough)


def run(selector: Selector, passes: range, n: int = 120) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    features = torch.randn(n, 40, generator=g)
    loss, entropy = features[:, 0].exp(), features[:, 1].sigmoid()
    chosen = []
    for p in passes:
        chosen.append(selector.begin_pass(p).indices.clone())
        feed(selector, features, loss + 0.01 * p, entropy)
        selector.end_pass()
    return chosen


def test_the_core_imports_no_toolbox() -> None:
    code = (
        "import sys, det_seg_agent, det_seg_agent.reporting.report, det_seg_agent.scenes;"
        "sys.exit(any(m.split('.')[0] in ('ultralytics', 'mmengine', 'mmseg', 'mmcv') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_schedule_follows_the_pass() -> None:
    s = Schedule(ratio=0.5)
    assert [s.ratio_at(p, 8) for p in range(8)] == [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0]
    assert [s.ratio_at(p, 4) for p in range(4)] == [1.0, 0.5, 0.5, 1.0]
    o = Schedule(ratio=0.5, schedule="oscillating", low=0.3, warmup=0, final_full=0)
    assert [o.ratio_at(p, 4) for p in range(4)] == pytest.approx([0.3, 0.7, 0.3, 0.7])
    assert o.budget(4, 1000) == pytest.approx(0.5)


def test_a_run_that_selects_nothing_is_told() -> None:
    s = Schedule(ratio=0.5)
    assert s.nothing_selected(3, "images", 48) == "" == Schedule(ratio=1).nothing_selected(2, "images", 48)
    assert s.nothing_selected(2, "images").startswith("nothing will be selected: the 2 passes of this run are all over")
    near = Schedule(ratio=0.99, warmup=0, final_full=0)
    assert "all samples (agent.warmup=0, agent.final_full=0)" in near.nothing_selected(9, "samples", 10), "it rounds"
    assert near.nothing_selected(9, "samples") == ""


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_sampler_shards_the_selection(ranks: int, shuffle: bool) -> None:
    chosen = torch.arange(0, 100, 5)
    walks = []
    for rank in range(ranks):
        sampler = SelectionSampler(100, 3, rank, ranks, shuffle)
        sampler.set_selection(chosen)
        sampler.set_epoch(2)
        walk = list(sampler)
        assert len(walk) == len(sampler) and walk == list(sampler)
        walks.append(walk)
    assert len({len(w) for w in walks}) == 1
    assert {index for walk in walks for index in walk} == set(chosen.tolist())
    assert sum(map(len, walks)) == len(chosen) + sampler.padding and sampler.padding < ranks
    sampler.set_epoch(3)
    assert (list(sampler) != walks[-1]) == shuffle


def test_one_sample_on_three_ranks() -> None:
    sampler = SelectionSampler(9, 0, 2, 3)
    sampler.set_selection(torch.tensor([4]))
    assert list(sampler) == [4]


def test_rewards_by_hand() -> None:
    loss = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0])
    cap = 3 + 0.8 * 97  # the 95th percentile lies 0.8 of the way from 3 to 100
    assert torch.allclose(paper_difficulty(loss), loss.clamp(max=cap) / cap)
    d, u = torch.tensor([0.0, 1.0]), torch.tensor([0.4, 0.6])
    w = 0.25 / (0.25 + 0.01 + 1e-8)
    assert balance(d, u).item() == pytest.approx(w)
    assert torch.allclose(quality(d, u)[0], w * d + (1 - w) * u)
    assert robust_scale(torch.full((4,), 2.0)).tolist() == [0, 0, 0, 0]
    assert rank_order(torch.tensor([5.0, 0, 5, 9])).tolist() == [0.5, 0.125, 0.5, 0.875] and not len(rank_order(d[:0]))
    action, q = torch.linspace(0, 1, 101), torch.full((101,), 0.3)
    best = [float(action[reward(action, q, matching).argmax()]) for matching in (False, True)]
    assert best == pytest.approx([1, 0.3])


def test_running_norm_is_that_of_all_values() -> None:
    values = torch.randn(300) * 3 + 5
    norm = RunningNorm()
    for part in values.split(70):
        norm(part)
    assert norm.mean == pytest.approx(values.mean().item(), rel=1e-4)
    assert norm.var == pytest.approx(values.var(unbiased=False).item(), rel=1e-4)


def test_gae_by_hand() -> None:
    r, v = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.5, 1.0], [1.0, 0.0]])
    valid = torch.tensor([[True, True], [True, False]])
    got = gae(r, v, valid, 0.9, 0.5)
    assert got[1, 0].item() == pytest.approx(2.0)
    assert got[0, 0].item() == pytest.approx(1 + 0.9 * 1 - 0.5 + 0.45 * 2)
    assert got[0, 1].item() == pytest.approx(1.0)


def test_signals_are_credited_by_share_and_broken_ones_dropped() -> None:
    buffer = SignalBuffer(Projector(None, 0), chunk=1)
    buffer.add(
        torch.tensor([1.0, 3.0, float("nan")]),
        torch.tensor([0.1, 0.3, 0.5]),
        torch.ones(3, 2),
        torch.tensor([7, 2, 7, 2]),
        torch.tensor([0, 0, 1, 2]),
        torch.tensor([0.75, 0.25, 1.0, 1.0]),
    )
    signals = buffer.drain()
    assert buffer.dropped == 1
    sums = SampleSums(8, None)
    sums.add(*Drift().push(signals, last=True))
    for rows in (sums.samples(), Rows.of(signals)):
        assert rows.index.tolist() == [2, 7]
        assert rows.loss.tolist() == pytest.approx([1.0, (0.75 * 1 + 3) / 1.75])


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_selects_what_is_asked_and_resumes(name: str) -> None:
    whole = Selector(120, 8, strategy=name, ratio=0.4, applies_weights=True, classes=some_classes(120))
    chosen = run(whole, range(8))
    counts = [120 if name == "full" else whole.settings.count_at(p, 8, 120) for p in range(8)]
    assert [len(c) for c in chosen] == counts
    for c in chosen:
        assert (len(c.unique()) == len(c) or whole.strategy.repeats) and c.min() >= 0 and c.max() < 120
    first = Selector(120, 8, strategy=name, ratio=0.4, applies_weights=True, classes=some_classes(120))
    run(first, range(4))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Selector(120, 8, strategy=name, ratio=0.4, applies_weights=True, classes=some_classes(120))
    second.load_state_dict(torch.load(file, weights_only=True))
    for a, b in zip(run(second, range(4, 8)), chosen[4:], strict=True):
        assert torch.equal(a, b)
    assert second.history[-1]["images"] == whole.history[-1]["images"] == sum(counts)
    assert torch.equal(second.table.selected, whole.table.selected)


@needs_cuda
@pytest.mark.parametrize("name", ["agent", "data_agent_paper", "infobatch"])
def test_a_state_that_was_loaded_to_a_device_goes_on(name: str) -> None:
    """As mmengine loads its checkpoints, or `torch.load(..., map_location="cuda")`."""
    first, second = (
        Selector(120, 8, strategy=name, ratio=0.4, applies_weights=True, classes=some_classes(120)) for _ in range(2)
    )
    run(first, range(4))
    state, random = io.BytesIO(), io.BytesIO()
    torch.save(first.state_dict(), state)
    torch.save(random_state(), random)
    drawn = torch.rand(3), torch.rand(3, device="cuda"), np.random.rand()
    for file in (state, random):
        file.seek(0)
    second.load_state_dict(torch.load(state, map_location="cuda", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(run(first, range(4, 8)), run(second, range(4, 8)), strict=True))
    set_random_state(torch.load(random, map_location="cuda", weights_only=True))
    again = torch.rand(3), torch.rand(3, device="cuda"), np.random.rand()
    assert torch.equal(again[0], drawn[0]) and torch.equal(again[1], drawn[1]) and again[2] == drawn[2]


@pytest.mark.parametrize("name", ["agent", "data_agent_paper"])
def test_ppo_raises_the_weight_of_rewarded_samples(name: str) -> None:
    """Samples whose feature 0 is 1 are hard and uncertain, the others neither: the policy must weigh them more."""
    n = 256
    features = torch.zeros(n, 8)
    features[::2, 0] = 1
    given = {"warmup": 20, "final_full": 0, "ratio": 0.5, "options": {"lr": 0.01}}
    selector = Selector(n, 40, strategy=name, applies_weights=True, **given)
    hard = features[:, 0]
    for p in range(20):
        selector.begin_pass(p)
        feed(selector, features, 0.1 + hard, 0.1 + 0.8 * hard, 32)
        selector.end_pass()
    chosen = selector.begin_pass(20).indices
    score = selector.table.score
    if name == "agent":  # ranks of two kinds, and the rates that follow from them
        assert (score[::2] - 0.75).abs().max() < 0.1 and (score[1::2] - 0.25).abs().max() < 0.1
        assert 0.6 < hard[chosen].mean() < 0.7
    else:  # the recipe rewards easy samples for large actions as well
        assert score[::2].mean() > score[1::2].mean() + 0.03 and hard[chosen].mean() > 0.52


def test_weights_tell_samples_apart_to_the_end_of_a_long_run() -> None:
    """Losses of a few samples are far above the others'; weights are spread as ranks are, and stay so."""
    n, g = 300, torch.Generator().manual_seed(0)
    hard = torch.rand(n, generator=g) ** 4
    features = torch.randn(n, 8, generator=g) + 3 * hard[:, None]
    selector = Selector(n, 60, strategy="agent", ratio=0.5, final_full=0)
    for p in range(60):
        selector.begin_pass(p)
        feed(selector, features, 0.1 + hard, 0.1 + 0.8 * hard, 32)
        selector.end_pass()
    weight = selector.table.score
    middle = weight.sort().values[n // 4 : 3 * n // 4]
    assert middle[-1] - middle[0] > 0.3
    assert torch.corrcoef(torch.stack([rank_order(weight), rank_order(hard)]))[0, 1] > 0.8


@pytest.mark.parametrize("difficulty", ["insufficiency", "both"])
def test_difficulty_by_insufficiency_selects_what_is_not_learnt_and_resumes(difficulty: str) -> None:
    """Loss and entropy say nothing here; every other sample is insufficient."""
    n = 200
    enough = (torch.arange(n) % 2).float()
    g = torch.Generator().manual_seed(0)
    noise, features = torch.rand(n, generator=g), torch.randn(n, 4, generator=g)

    def pass_of(selector: Selector, p: int) -> torch.Tensor:
        chosen = selector.begin_pass(p).indices
        for rows in chosen.split(20):
            selector.observe(rows, noise[rows], torch.ones(len(rows)), features[rows], sufficiency=enough[rows])
        selector.end_pass()
        return chosen

    def make(**options: object) -> Selector:
        return Selector(n, 12, strategy="agent", ratio=0.5, options={"difficulty": difficulty, **options})

    whole = make()
    chosen = [pass_of(whole, p) for p in range(9)]
    first = make()
    for p in range(5):
        pass_of(first, p)
    second = make()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(pass_of(second, p), chosen[p]) for p in range(5, 9))
    assert torch.cat(chosen[3:]).remainder(2).float().mean() < (0.35 if difficulty == "insufficiency" else 0.45)
    with pytest.raises(StateError, match="agent.options.floor=0.4, and this run has agent.options.floor=0.9"):
        make(floor=0.9).load_state_dict(first.state_dict())
    older = first.state_dict()
    del older["options"]["rounds"]
    with pytest.raises(StateError, match="knows nothing of agent.options.rounds"):
        make().load_state_dict(older)


@pytest.mark.parametrize("settings", [{"options": {"difficulty": "insufficiency"}}, {"strategy": "afss"}])
def test_what_needs_a_sufficiency_is_refused_where_none_is_told(settings: dict[str, Any]) -> None:
    selector = Selector(10, 4, ratio=0.5, **settings)
    selector.begin_pass(0)
    ones = torch.ones(10)
    selector.observe(torch.arange(10), ones, ones, ones[:, None])
    with pytest.raises(StateError, match="pass `sufficiency` to `Selector.observe`.*difficulty=loss"):
        selector.end_pass()


def test_infobatch_expects_the_full_gradient() -> None:
    n, repeats = 60, 4000
    g = torch.Generator().manual_seed(0)
    gradient = torch.randn(n, generator=g)
    loss = torch.rand(n, generator=g) ** 2
    from det_seg_agent.strategies import InfoBatch

    for count in (45, 20):  # with the mean as threshold, and with a raised one
        table = ScoreTable(n)
        table.loss = loss
        strategy = InfoBatch(table, 1, InfoBatch.Options())
        sums = torch.zeros(repeats)
        for p in range(repeats):
            s = strategy.select(Request(p, repeats, count, count / n))
            assert len(s) == count and s.weights is not None
            sums[p] = (gradient[s.indices] * s.weights).sum()
        error = sums.std() / repeats**0.5
        assert abs(sums.mean() - gradient.sum()) < 4 * error


def test_a_users_own_strategy_joins_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))  # the other tests see the package's own

    @register("first_ones")
    class FirstOnes(Strategy):
        def select(self, request: Request) -> Selection:
            return Selection(torch.arange(request.count))

    selector = Selector(10, 4, strategy="first_ones", ratio=0.3)
    assert selector.begin_pass(1).indices.tolist() == [0, 1, 2]
    selector = Selector(10, 4, strategy="det_seg_agent.strategies.baselines:Random", ratio=0.3)
    assert len(selector.begin_pass(1)) == 3


@pytest.mark.parametrize(("count", "floor"), [(50, 0.2), (99, 0.1), (1, 0.1), (100, 0.0), (30, 0.9), (50, 1.0)])
def test_rates_add_up_and_keep_their_order(count: int, floor: float) -> None:
    weight = torch.rand(100, generator=torch.Generator().manual_seed(0)) ** 4
    rate = rates(weight, count, floor)
    assert rate.sum().item() == pytest.approx(count, rel=1e-4)
    assert rate.min() >= floor * count / 100 - 1e-6 and rate.max() <= 1
    order = weight.argsort()
    assert bool((rate[order].diff() >= -1e-6).all())


def test_samples_come_round_at_their_rates() -> None:
    n, passes = 200, 60
    weight, seen = torch.linspace(0.05, 0.95, n), torch.zeros(n, dtype=torch.bool)
    round_robin, draw = RoundRobin(n, seed=0), torch.Generator()
    times, last, gap = torch.zeros(n), torch.zeros(n), torch.zeros(n)
    for p in range(1, passes + 1):
        chosen = round_robin.take(weight, 80, 0.25, seen, draw)
        assert len(chosen.unique()) == 80
        gap[chosen] = torch.maximum(gap[chosen], p - last[chosen])
        last[chosen] = p
        times[chosen] += 1
    rate = rates(weight, 80, 0.25)
    assert (times - rate * passes).abs().max() <= 1.5
    assert bool((gap <= 1 / rate + 4).all()), "nobody waits much longer than its rate says"


def test_staggered_selections_are_alike_and_take_their_share_of_each_part() -> None:
    n, count, draw = 300, 150, torch.Generator()
    weight, seen = torch.rand(n, generator=torch.Generator().manual_seed(1)), torch.zeros(n, dtype=torch.bool)
    means, parts = {}, {}
    for seed in (3, None):
        round_robin = RoundRobin(n, seed)
        even = [round_robin.take(weight, count, 1.0, seen, draw) for _ in range(6)]
        parts[seed] = [torch.bincount(chosen // 30, minlength=10) for chosen in even]
        round_robin = RoundRobin(n, seed)
        weights = [weight[round_robin.take(weight, count, 0.7, seen, draw)].mean() for _ in range(6)]
        means[seed] = max(weights) - min(weights)
    assert means[3] < 0.1 < 0.3 < means[None], "else heavy and light samples take turns as wholes"
    assert all(bool(((part - 15).abs() <= 2).all()) for part in parts[3])
    assert int((parts[None][0] - 15).abs().max()) > 2, (
        "all are due alike: a random draw, of which parts get unlike shares"
    )
    unseen = RoundRobin(n, 3).take(weight, count, 1.0, ~seen, draw)  # no first pass over everything
    assert bool(((torch.bincount(unseen // 30, minlength=10) - 15).abs() <= 2).all())
    assert not torch.equal(RoundRobin(n, 3).priority, RoundRobin(n, 4).priority)
    assert Agent(ScoreTable(n), 3, AgentOptions()).round_robin.priority.equal(RoundRobin(n, 3).priority), (
        "staggered by default"
    )


def test_levels_compare_within_a_pass_and_average_over_passes() -> None:
    levels = Levels(6, memory=0.5)
    index = torch.arange(5)
    loss = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    unknown = torch.full((5,), float("nan"))

    def see(loss: torch.Tensor, entropy: torch.Tensor, sufficiency: torch.Tensor) -> None:
        relative = torch.stack([loss, entropy, sufficiency], 1)
        levels.update(sample_signals(index, loss=loss, entropy=entropy, sufficiency=sufficiency, relative=relative))

    see(loss, loss, unknown)
    first = levels.known(index)
    assert first[2, 0] == 0.5 and first[0, 0] == 0 and first[4, 1] == 1 and bool(first[:, 2].isnan().all())
    see(100 * loss.flip(0), loss, unknown)
    assert torch.allclose(levels.known(index)[:, 0], torch.full((5,), 0.5), atol=1e-3)
    assert levels.inputs(torch.tensor([5])).tolist() == [[0, 0, 0]] and not levels.inputs(index)[:, 2].any()
    assert torch.equal(levels.difficulty(index, "both"), levels.difficulty(index, "loss")), "no sufficiency was told"
    see(loss, loss, 1 - loss / 8)
    mean = (levels.difficulty(index, "loss") + levels.difficulty(index, "insufficiency")) / 2
    assert torch.allclose(levels.difficulty(index, "both"), mean) and levels.difficulty(index, "insufficiency")[4] == 1
    before = levels.known(index)[:, 2]
    see(loss, loss, torch.where(index == 1, float("nan"), loss / 4))
    after = levels.known(index)[:, 2]
    assert after[1] == before[1] and bool((after != before)[[0, 4]].all()), "what is not told leaves what was known"


@pytest.mark.parametrize("name", [name for name in strategy_names() if name not in ("full", "random")])
def test_samples_without_finite_signals_are_not_selected_for_ever(name: str) -> None:
    n, passes = 60, 24
    broken = torch.arange(n) < 20
    g = torch.Generator().manual_seed(0)
    loss, features = torch.rand(n, generator=g), torch.randn(n, 8, generator=g)
    given = {"strategy": name, "ratio": 0.5, "final_full": 0, "applies_weights": True, "classes": some_classes(n)}
    selector = Selector(n, passes, **given)
    times = torch.zeros(n)
    for p in range(passes):
        chosen = selector.begin_pass(p).indices
        times[chosen] += p > 0
        values = loss[chosen].masked_fill(broken[chosen], float("nan"))
        selector.observe(chosen, values, loss[chosen], features[chosen], sufficiency=1 - loss[chosen])
        selector.end_pass()
    assert times[broken].mean() <= 0.6 * (passes - 1), "at most about as often as any other"


def test_the_trace_is_whole_after_a_pass_is_written_again(tmp_path) -> None:
    selector = Selector(120, 8, ratio=0.5)
    trace = Trace(tmp_path)
    for p in range(4):
        run(selector, range(p, p + 1))
        trace.write(p, selector.table, selector.selection.indices, selector.table.score)
    trace.write(3, selector.table, selector.selection.indices, selector.table.score)
    (tmp_path / ".pass_0004.parquet.part").write_bytes(b"half")
    table = read(tmp_path)
    assert table is not None and len(table) == 4 * 120
    last = table.filter(table["pass"].to_numpy() == 3)
    chosen = torch.tensor(last["selected"].to_pylist()).nonzero().squeeze(1)
    assert torch.equal(chosen, selector.selection.indices)
    seen = [value is not None for value in last["loss"].to_pylist()]
    assert sum(seen) == 60
    got = torch.tensor([v for v in last["loss"].to_pylist() if v is not None])
    assert torch.allclose(got, selector.table.loss[chosen], rtol=1e-3)
    trace.drop_from(2)
    table = read(tmp_path)
    assert table is not None and set(table["pass"].to_pylist()) == {0, 1}
