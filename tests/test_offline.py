"""Offline learners: what they learn, what their parts are worth, and that they are steps like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftrainer import TrainState, build, evaluate, fit, predict, run_experiment, to_module
from ftrainer.exporting import export_checkpoint
from ftrainer.functional import pytree
from ftrainer.functional.replicate import unstack

pytest.importorskip("h5py", reason="needs the extra rl")

from extensions.offline.critics import Critics, NormalizeReward
from extensions.offline.flow_bc import FlowPolicy, carry, squared_error
from extensions.offline.iql import expectile_loss
from extensions.offline.learner import action_of, average

from .offline_runs import BEST, LEARNERS, TRANSITION, config, write_episodes

ALL = tuple(LEARNERS)
VALUED = ("td3_bc", "iql")
SLOTS = {"td3_bc": ("target_critic", "target_model"), "iql": ("target_critic",), "flow_bc": ("ema",)}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("offline") / "e.hdf5")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_episodes(tmp_path / "e.hdf5", n=20)


def short(steps: int = 5, **options: Any) -> dict[str, Any]:
    return {"_type_": "trainer.default", "max_steps": steps, "val_every_n_epochs": None} | options


def trained(name: str, path: Path, overrides: dict[str, Any] | None = None, **changes: Any) -> tuple[TrainState, Any]:
    state, data = build(config(name, path, **changes), overrides)
    return fit(state, data), data


def mean_action(state: TrainState) -> float:
    obs = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 10.0]) + 3
    return float(action_of(predict(state, obs)).mean())


def equal(a: Any, b: Any) -> bool:
    return pytree.structure(a) == pytree.structure(b) and all(
        torch.equal(x, y) for x, y in zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def imitators(episodes: Path) -> dict[str, TrainState]:
    return {name: trained(name, episodes)[0] for name in ("bc", "bc_gaussian", "flow_bc")}


@pytest.mark.parametrize("name", ["bc", "bc_gaussian", "flow_bc"])
def test_imitation_finds_what_was_done_on_average(name: str, imitators: dict[str, TrainState]) -> None:
    assert abs(mean_action(imitators[name])) < 0.15


@pytest.mark.parametrize("name", VALUED)
def test_values_find_what_is_better(name: str, episodes: Path) -> None:
    stronger = {"td3_bc": {"learner.alpha": 5.0}, "iql": {"learner.temperature": 10.0}}[name]
    state, _ = trained(name, episodes, stronger | {"trainer.max_steps": 400})
    assert abs(mean_action(state) - BEST) < 0.15


@pytest.mark.parametrize(("name", "path"), [("td3_bc", "learner.alpha"), ("iql", "learner.temperature")])
def test_without_their_weight_values_move_no_policy(name: str, path: str, episodes: Path) -> None:
    assert abs(mean_action(trained(name, episodes, {path: 0.0})[0])) < 0.15


def test_a_gaussian_learns_the_spread(imitators: dict[str, TrainState]) -> None:
    spread = predict(imitators["bc_gaussian"], torch.zeros(1, 2))["log_std"].exp()
    assert float(spread) == pytest.approx(1 / 3**0.5, abs=0.1)


def test_a_flow_draws_from_the_whole_range(imitators: dict[str, TrainState]) -> None:
    drawn = predict(imitators["flow_bc"], torch.zeros(512, 2) + 3)
    assert drawn.shape == (512, 2, 1)
    assert drawn.abs().max() <= 1
    assert float(drawn.std()) == pytest.approx(1 / 3**0.5, abs=0.12)


@pytest.mark.parametrize("name", ALL)
def test_validation_and_metrics(name: str, episodes: Path) -> None:
    state, data = trained(name, episodes, trainer=short(2), metrics=[{"_type_": "metric.mse"}])
    figures = evaluate(state, data)
    assert {"loss", "mse"} <= set(figures)
    assert evaluate(state, data) == figures


# The parts.


@pytest.mark.parametrize(("terminal", "expected"), [(1.0, 2.0), (0.0, 2.0 + 0.9 * 10.0)])
def test_an_episode_that_ran_out_of_time_goes_on(terminal: float, expected: float) -> None:
    critics = Critics()
    batch = {"reward": torch.tensor([2.0]), "terminal": torch.tensor([terminal])}
    target = critics.target({"reward": {}}, batch, torch.tensor([10.0]), 0.9)
    assert target.item() == pytest.approx(expected)


def test_time_outs_of_the_data_are_no_terminals(episodes: Path) -> None:
    _, data = build(config("iql", episodes))
    share = torch.cat([batch["terminal"] for batch in data.batches("train", 0)]).mean()
    assert float(share) == pytest.approx(2 / 3 / 4, abs=0.02)  # two of three episodes terminate, after four steps


def test_rewards_over_several_steps_bring_their_own_discount() -> None:
    batch = {"reward": torch.tensor([2.0]), "terminal": torch.tensor([0.0]), "discount": torch.tensor([0.5])}
    assert Critics().target({"reward": {}}, batch, torch.tensor([10.0]), 0.9).item() == 7.0


def test_an_expectile_is_what_it_is_called() -> None:
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    loss = expectile_loss(draws[None] - grid[:, None], 0.8).mean(1)
    assert float(grid[loss.argmin()]) == pytest.approx(2 / 3, abs=0.01)  # 0.8 (1 - m)² = 0.2 m²
    assert torch.equal(expectile_loss(draws - 0.5, 0.5), 0.5 * (draws - 0.5).square())


def test_a_mean_leaves_padding_out() -> None:
    values = torch.tensor([1.0, 3.0, 100.0])
    assert average(values, {"sample_mask": torch.tensor([True, True, False])}) == 2
    assert average(values[:2], {}) == 2


def test_the_error_of_a_chunk_ends_with_its_episode() -> None:
    velocity, target = torch.tensor([[1.0, 50.0], [1.0, 3.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[True, False], [True, True]])
    assert squared_error(velocity, target, {"action_mask": mask}).tolist() == [1.0, 5.0]
    assert squared_error(velocity, target, {}).tolist() == [1250.5, 5.0]


def test_a_straight_flow_arrives_whatever_the_steps() -> None:
    noise, scale = torch.tensor([[0.3, -0.2]]), {"mean": torch.tensor([0.1, 0.0]), "std": torch.ones(2) * 0.999}
    for steps in (1, 7):
        arrived = carry(lambda x, t: torch.ones_like(x) * 0.5, noise, steps, scale, bound=1.0)
        assert arrived[0].tolist() == pytest.approx([0.9, 0.3], abs=1e-6)
    assert carry(lambda x, t: 9 * torch.ones_like(x), noise, 1, scale, bound=1.0).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", ALL)
def test_a_padded_batch_is_worth_its_real_examples(name: str, few: Path) -> None:
    state, data = build(config(name, few, trainer=short()))
    batch = next(data.batches("train", 0))
    padded = {
        key: torch.cat([value, value[:5] + 1 if value.is_floating_point() else value[:5]])
        for key, value in batch.items()
    }
    padded["sample_mask"] = torch.arange(len(padded["obs"])) < len(batch["obs"])
    judged, expected = (state.program.learner.evaluate(state, b) for b in (padded, batch))
    if name == "flow_bc":  # its noise depends on the batch's shape
        assert judged["count"] == expected["count"]
        return
    assert {k: float(v) for k, v in judged.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-5
    )


# Scales travel in the state, into evaluation and export.


@pytest.mark.parametrize("name", ["bc", "bc_gaussian", *VALUED])
def test_an_exported_policy_takes_raw_observations(name: str, few: Path) -> None:
    state, data = trained(name, few, trainer=short())
    policy, obs = to_module(state), next(data.batches("val", 0))["obs"]
    torch.testing.assert_close(action_of(policy(obs)), action_of(predict(state, obs)))
    statistics = data.statistics()["obs"]
    torch.testing.assert_close(policy.state_dict()["0.mean"].double(), statistics["mean"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(policy.state_dict()["0.std"].double(), statistics["std"], rtol=1e-6, atol=1e-6)


def test_an_exported_flow_takes_raw_observations_and_gives_raw_chunks(few: Path) -> None:
    state, data = trained("flow_bc", few, trainer=short())
    policy, batch = to_module(state), next(data.batches("train", 0))
    assert isinstance(policy, FlowPolicy)
    torch.testing.assert_close(policy.mean.double(), data.statistics()["action"]["mean"], rtol=1e-6, atol=1e-6)
    noise = torch.zeros(len(batch["obs"]), 2)
    assert torch.equal(policy(batch["obs"], noise), policy(batch["obs"], noise))
    assert policy(batch["obs"]).shape == batch["action"].shape
    program = torch.export.export(policy, (batch["obs"], noise))
    torch.testing.assert_close(program.module()(batch["obs"], noise), policy(batch["obs"], noise))


@pytest.mark.parametrize("name", ALL)
def test_a_state_without_its_scales_makes_no_policy(name: str, few: Path) -> None:
    state, data = build(config(name, few))
    bare = attrs.evolve(state, buffers={**state.buffers, "model": {}})
    with pytest.raises(ValueError, match=r"not those of this model: .*mean.*std"):
        predict(bare, next(data.batches("train", 0))["obs"])
    with pytest.raises(ValueError, match=r"not those of this model: .*mean.*std"):
        to_module(bare)


def test_a_flow_without_the_scale_of_its_actions_makes_no_policy(few: Path) -> None:
    state, _ = build(config("flow_bc", few))
    with pytest.raises(KeyError, match="action"):
        to_module(attrs.evolve(state, buffers={"model": state.buffers["model"]}))


def test_critics_and_rewards_are_scaled_by_the_training_split(few: Path) -> None:
    state, data = build(config("iql", few))
    statistics = data.statistics()
    held = {role: state.buffers[role]["normalize.mean"] for role in ("critic", "value")}
    for name, value in {**held, "reward": state.buffers["reward"]["std"]}.items():
        expected = statistics["reward"]["std"] if name == "reward" else statistics["obs"]["mean"]
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    scaled = NormalizeReward(floor=0.0)
    scaled.fit(statistics)
    assert float(scaled(data.fields["reward"][data.train]).std(correction=0)) == pytest.approx(1.0, rel=1e-5)


# Steps like any other.


@pytest.mark.parametrize("name", [*VALUED, "flow_bc"])
def test_a_run_taken_up_again_ends_as_if_never_stopped(name: str, few: Path, tmp_path: Path) -> None:
    whole = run_experiment(config(name, few, trainer=short(7)), {"run.out_dir": str(tmp_path / "whole")})
    calls = iter([None, None, "stop"])
    halves = config(
        name, few, trainer=short(7), run={"name": name, "out_dir": str(tmp_path / "halves"), "compile": "trace"}
    )
    first = run_experiment(halves, interrupted=lambda: next(calls))
    assert int(first.step) == 3
    second = run_experiment(halves, resume="auto")
    assert int(second.step) == 7
    for part in ("params", "buffers", "opt_state", "slots", "key"):
        assert equal(getattr(second, part), getattr(whole, part)), part
    (saved,) = (tmp_path / "whole").rglob("state.safetensors")
    leaves = load_file(saved)
    for slot in SLOTS[name]:
        assert all(torch.equal(leaves[f"slots/{slot}/{key}"], x) for key, x in whole.slots[slot].items())


@pytest.mark.parametrize("name", ALL)
def test_traced_is_eager(name: str, few: Path) -> None:
    run = {"name": name, "precision": "fp64"}
    eager, traced = (trained(name, few, trainer=short(3), run={**run, "compile": how})[0] for how in ("eager", "trace"))
    for path, a, b in zip(
        pytree.paths(eager.params), pytree.leaves(eager.params), pytree.leaves(traced.params), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=path)


SWEPT = {
    "bc": {},
    "bc_gaussian": {},
    "td3_bc": {"learner.alpha": [1.0, 4.0], "learner.noise": [0.1, 0.3], "learner.tau": [0.01, 0.5]},
    "iql": {"learner.expectile": [0.6, 0.9], "learner.temperature": [1.0, 5.0], "learner.discount": [0.9, 0.99]},
    "flow_bc": {"learner.ema_decay": [0.5, 0.9]},
}


@pytest.mark.parametrize("name", ALL)
def test_a_member_of_a_stack_is_its_solo_run(name: str, few: Path) -> None:
    run = {"name": name, "precision": "fp64", "compile": "eager"}
    over = {"optimizer.lr": [1e-3, 3e-3], **SWEPT[name]}
    together, _ = trained(name, few, trainer=short(3), run=run, replicate={"over": over, "combine": "zip"})
    for index, member in enumerate(unstack(together)):
        solo, _ = trained(name, few, {path: values[index] for path, values in over.items()}, trainer=short(3), run=run)
        for a, b in zip(
            pytree.leaves((member.params, member.slots)), pytree.leaves((solo.params, solo.slots)), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_td3s_policy_and_targets_rest_on_every_other_step(few: Path) -> None:
    states = [trained("td3_bc", few, trainer=short(n))[0] for n in (1, 2, 3)]
    start, _ = build(config("td3_bc", few))
    resting = [
        (state.params["model"], state.slots["target_critic"], state.slots["target_model"]) for state in (start, *states)
    ]
    assert equal(resting[0], resting[1])
    assert equal(resting[2], resting[3])
    assert not equal(resting[1], resting[2])


def first_batch(data: Any) -> dict[str, Tensor]:
    return next(iter(data.batches("train", 0)))


@pytest.mark.parametrize("name", VALUED)
def test_every_field_is_read(name: str, few: Path) -> None:
    state, data = build(config(name, few))
    batch = first_batch(data)
    loss = float(state.program.learner.evaluate(state, batch)["critic_loss"])
    for field in TRANSITION:
        changed = {**batch, field: batch[field].flip(0)}
        assert float(state.program.learner.evaluate(state, changed)["critic_loss"]) != loss, field


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_is_exported_with_its_scales(name: str, few: Path, tmp_path: Path) -> None:
    run_experiment(config(name, few, trainer=short(2)))
    state, data = build(config(name, few))
    (saved,) = (few.parent / "run").rglob("state.safetensors")
    weights = load_file(export_checkpoint(saved.parent, tmp_path / "policy.safetensors"))
    policy = to_module(state)
    policy.load_state_dict(weights)
    scales = [tensor for key, tensor in weights.items() if key.endswith("mean") and tensor.shape == (2,)]
    assert any(torch.equal(scale, data.statistics()["obs"]["mean"].float()) for scale in scales)
    program = torch.export.load(export_checkpoint(saved.parent, tmp_path / "policy.pt2")).module()
    obs = first_batch(data)["obs"][:5]
    assert action_of(program(obs)).shape[0] == 5
    if name != "flow_bc":  # which draws
        torch.testing.assert_close(action_of(program(obs)), action_of(policy(obs)))
