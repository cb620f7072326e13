"""The contestants of the benchmarks train the same thing, and the harness reports what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch.nn import functional as F

from benchmarks import __main__ as questions
from benchmarks import harness, memory, peers, start, step
from benchmarks.workloads import LR, WEIGHT_DECAY, WORKLOADS, Workload
from ftrainer import fit

SMALL = (
    Workload(name="mlp", kind="mlp", sizes={"width": 8}, shape=(17,), batch_size=16, steps=3),
    Workload(name="conv", kind="conv_net", sizes={"channels": (4, 8)}, shape=(3, 8, 8), batch_size=4, steps=3),
    Workload(name="tr", kind="transformer", sizes={"d_model": 8, "n_layers": 2}, shape=(5, 17), batch_size=4, steps=3),
)


@pytest.fixture(params=SMALL, ids=lambda workload: workload.name)
def small(request: pytest.FixtureRequest) -> Workload:
    return request.param


def by_hand(workload: Workload) -> tuple[torch.nn.Module, list[float]]:
    module, losses = workload.module().train(), []
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for batch in workload.batches()[: workload.steps]:
        loss = F.mse_loss(module(batch["x"]), batch["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return module, losses


def test_ftrainer_trains_what_the_hand_written_loop_trains(small: Workload) -> None:
    trained = fit(peers.state_of(small, "trace"), small.batches())
    for name, value in by_hand(small)[0].named_parameters():
        if name.endswith("in_proj_bias"):
            continue  # a bias of attention's keys has no true gradient, and AdamW makes steps of its rounding
        torch.testing.assert_close(trained.params["model"][name], value.detach(), rtol=1e-4, atol=1e-4)


def test_jax_sees_the_losses_that_torch_sees(small: Workload) -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("optax")
    from benchmarks.jax_models import step_of  # noqa: PLC0415 (needs JAX)

    advance, state = step_of(small)
    for batch, expected in zip(small.batches(), by_hand(small)[1], strict=False):
        state, loss = advance(state, {name: jax.numpy.asarray(value.numpy()) for name, value in batch.items()})
        assert float(loss) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", [peers.HAND, "fit, trace", "bare step, inductor"])
def test_runners_say_seconds_per_step(name: str) -> None:
    contestant = peers.bare_step("trace") if name == "bare step, inductor" else peers.CONTESTANTS[name]
    seconds = contestant(SMALL[0])
    assert 0 < seconds() < 10
    assert 0 < seconds() < 10


def test_weights_and_batches_are_the_same_at_each_call() -> None:
    for workload in WORKLOADS[:2]:
        for a, b in zip(workload.module().parameters(), workload.module().parameters(), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(workload.batches()[3]["x"], workload.batches()[3]["x"])
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


def test_rounds_take_turns_there_and_back() -> None:
    order: list[str] = []

    def runner(name: str) -> harness.Runner:
        return lambda: float(len(order.__iadd__([name])))

    taken = harness.rounds({name: runner(name) for name in "ab"}, 3)
    assert "".join(order) == "abbaab"
    assert taken == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_ratios_are_paired() -> None:
    taken = {"base": [2.0, 20.0, 200.0], "twice": [1.0, 10.0, 100.0]}
    speeds = harness.ratios(taken, "base")
    assert attrs.astuple(speeds["twice"])[:4] == (2.0, 2.0, 2.0, 2.0)
    figures = harness.summary(taken, "base")["twice"]
    assert figures["microseconds"]["median"] == 1e7
    assert figures["times as fast as base"]["median"] == 2.0


def test_a_single_round_has_no_spread() -> None:
    assert harness.spread([3.0]) == harness.Spread(median=3.0, low=3.0, high=3.0, least=3.0, n=1)


def test_results_are_written_with_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    written: dict[str, Any] = json.loads(harness.write("x", {"figures": [1]}).read_text())
    assert written["figures"] == [1]
    assert torch.__version__.startswith(written["environment"]["versions"]["torch"])  # it may name its build besides
    assert written["environment"]["threads"] == torch.get_num_threads()


def test_the_table_leaves_absent_peers_blank(capsys: pytest.CaptureFixture[str]) -> None:
    row = harness.summary({"base": [1e-4, 1.2e-4], "other": [5e-5, 6e-5]}, "base")
    harness.show("step", {"one": row, "two": {"base": row["base"]}}, "base")
    printed = capsys.readouterr().out
    assert "2.00×" in printed
    assert "–" in printed


def test_an_unknown_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        questions.main(["stp"])
    assert "invalid choice: 'stp'" in capsys.readouterr().err


def test_the_step_question_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "WORKLOADS", SMALL)
    monkeypatch.setattr(harness, "one_core", lambda: None)
    assert step.main(["--rounds", "2", "--only", "mlp", "--peer", "fit, trace"]) == 0
    assert "fit, trace" in capsys.readouterr().out


def test_a_gpu_has_more_contestants_and_files_of_its_own() -> None:
    here, there = SMALL[0], SMALL[0].on("cuda")
    graphs = {"fit, cuda_graphs", "bare step, cuda_graphs"}
    torchs = [name for name in peers.CONTESTANTS if "+" not in name]
    assert graphs == {n for n in torchs if peers.is_there(n, there)} - {n for n in torchs if peers.is_there(n, here)}
    assert (there.device, there.steps, there.on("cpu").device) == ("cuda", 1000, "cpu")
    assert peers.configuration(there, "cuda_graphs")["run"]["device"] == "cuda"
    assert harness.called("step", there.device) == "step_cuda"
    assert set(start.ways_on("cuda")) - set(start.ways_on("cpu")) == {start.GRAPHS}
    assert set(memory.contestants("cuda")) - set(memory.contestants("cpu")) == {"fit, cuda_graphs"}
