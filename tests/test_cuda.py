"""What only a GPU can show: every backend trains alike there, draws are the CPU's, runs resume, precisions work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ftrainer import build, builtin_registry, evaluate, fit, member, run_experiment, to_module
from ftrainer.deps import cuda_graphs, inductor
from ftrainer.engine import checkpoint
from ftrainer.engine.accelerator import to_device
from ftrainer.engine.layout import free_bytes
from ftrainer.engine.stepper import Stepper, update
from ftrainer.engine.timing import backends_of, time_backends
from ftrainer.engine.writer import BackgroundWriter
from ftrainer.functional import augment, pytree, random
from ftrainer.functional.events import Save
from ftrainer.functional.graph.recording import WARM_UP, Recorded, RecordingError
from ftrainer.functional.jit import jit
from ftrainer.functional.redirect import redirect
from tests.saved_states import assert_same
from tests.test_experiment import config
from tests.test_replicate import alone, assert_trees_close, rich, small
from tests.test_resume import after
from tests.test_step import assert_trees_equal

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BACKENDS = ("eager", "trace", "inductor", "cuda_graphs")
COMPILED = ("inductor", "cuda_graphs")
DRAWS = {
    "bits": lambda key: random.bits(key, (1000,)),
    "uniform32": lambda key: random.uniform(key, (1000,)),
    "uniform64": lambda key: random.uniform(key, (1000,), torch.float64),
    "uniform_bf16": lambda key: random.uniform(key, (1000,), torch.bfloat16),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (1000,)),
    "randint": lambda key: random.randint(key, (1000,), -5, 1000),
    "randint_wide": lambda key: random.randint(key, (1000,), -(2**62), 2**62 + 5),
    "permutation": lambda key: random.permutation(key, 1000),
    "fold_in": lambda key: random.fold_in(key, 2**40),
    "split": lambda key: random.split(key, 1000),
    "alone": lambda key: random.bits(key),
}
CLOSE = {
    "normal32": lambda key: random.normal(key, (1000,)),
    "normal64": lambda key: random.normal(key, (1000,), torch.float64),
    "exponential": lambda key: random.exponential(key, (1000,)),
}
SAVING = [{"_type_": "cb.model_checkpoint", "save_dir": "${run.out_dir}/checkpoints", "every_n_steps": 2}]


def on_device(backend: str, **overrides: Any) -> dict[str, Any]:
    return {"run.device": DEVICE, "run.compile": backend, **{k.replace("__", "."): v for k, v in overrides.items()}}


def here(tree: Any) -> Any:
    return pytree.map(lambda x: x.cpu() if isinstance(x, Tensor) else x, tree)


@pytest.fixture(autouse=True)
def _needs_a_compiler(request: pytest.FixtureRequest) -> None:
    backend = getattr(request.node, "callspec", None) and request.node.callspec.params.get("backend")
    if backend in COMPILED and (reason := inductor.why_not(DEVICE)):
        pytest.skip(f"cannot compile here: {reason}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_trains_as_the_cpu_does(backend: str) -> None:
    steps = {"trainer__max_steps": 20}
    there = fit(*build(rich(), on_device(backend, **steps)))
    plain = fit(*build(rich(), {"run.device": "cpu", "run.compile": "eager", "trainer.max_steps": 20}))
    assert {leaf.device.type for leaf in pytree.leaves(there)} == {DEVICE}
    assert int(there.step) == 20
    assert_trees_close(here(alone(there)), alone(plain), 1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_run_twice_is_bitwise_the_same(backend: str) -> None:
    runs = [fit(*build(rich(), on_device(backend, trainer__max_steps=12, run__deterministic=True))) for _ in range(2)]
    assert_trees_equal(alone(runs[0]), alone(runs[1]))


def test_graphs_move_a_state_as_the_compiled_function_does() -> None:
    if reason := inductor.why_not(DEVICE):
        pytest.skip(f"cannot compile here: {reason}")
    asked = {"trainer__max_steps": 20, "run__deterministic": True}
    runs = [fit(*build(rich(), on_device(backend, **asked))) for backend in COMPILED]
    assert_trees_equal(alone(runs[0]), alone(runs[1]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_figures_of_earlier_steps_are_the_callers(backend: str) -> None:
    state, data = build(small(), on_device(backend))
    stepper = Stepper(pytree.map(torch.clone, state), backend)
    batch = to_device(next(iter(data.batches("train", 0))), state.step.device, "fp64")
    kept = [stepper(update, batch) for _ in range(WARM_UP + 4)]
    assert int(stepper.state.step) == WARM_UP + 4
    assert len({float(metrics["loss"]) for metrics in kept}) == len(kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_are_those_of_the_cpu(backend: str) -> None:
    drawn = jit(lambda key: {name: draw(key) for name, draw in (DRAWS | CLOSE).items()}, backend=backend)
    for seed in range(WARM_UP + 2):
        expected = {name: draw(random.key(seed)) for name, draw in (DRAWS | CLOSE).items()}
        found = here(drawn(random.key(seed, DEVICE)))
        for name, value in expected.items():
            if name in DRAWS:
                assert torch.equal(found[name], value), name
            else:
                torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_torch_draws_is_what_it_draws_on_the_cpu(backend: str) -> None:
    def noisy(key: Tensor, x: Tensor) -> list[Tensor]:
        with redirect(key):
            return [F.dropout(x, 0.3), torch.rand_like(x), torch.randint(1000, (8,), device=x.device), x.bernoulli()]

    x = torch.full((64, 32), 0.5)
    found = jit(noisy, backend=backend)(random.key(3, DEVICE), x.to(DEVICE))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, noisy(random.key(3), x), strict=True))


def test_members_draw_what_they_draw_alone() -> None:
    keys = random.split(random.key(1, DEVICE), 3)
    members = torch.vmap(lambda key: random.normal(key, (37,)))(keys)
    assert all(torch.equal(members[i], random.normal(keys[i], (37,))) for i in range(3))


def test_augmentations_are_those_of_the_cpu() -> None:
    def noisy(example: Any, key: Tensor) -> Any:
        return {"x": example["x"] * random.uniform(key, example["x"].shape)}

    batch, key = {"x": torch.ones(8, 3, 5)}, random.key(2)
    there = augment.apply([noisy], to_device(batch, torch.device(DEVICE)), key.to(DEVICE))
    assert torch.equal(there["x"].cpu(), augment.apply([noisy], batch, key)["x"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_ends_bitwise_equal(backend: str, tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> Any:
        overrides = on_device(backend, trainer__max_steps=12, run__deterministic=True)
        return run_experiment(rich(callbacks=SAVING), {**overrides, "run.out_dir": str(tmp_path / name)}, **options)

    whole = run("whole")
    assert int(run("parts", interrupted=after(5)).step) == 5
    assert_trees_equal(alone(run("parts", resume="auto")), alone(whole))
    manifest = checkpoint.load_manifest(tmp_path / "parts" / "checkpoints" / "last")
    assert manifest["run"]["backend"] == backend


def test_checkpoints_hold_the_state_as_it_was_though_the_loop_goes_on(tmp_path: Path) -> None:
    state, data = build(small(), on_device("eager"))
    stepper = Stepper(pytree.map(torch.clone, state), "eager")
    batches = [to_device(batch, state.step.device, "fp64") for batch in data.batches("train", 0)]
    with BackgroundWriter() as writer:
        for index, batch in enumerate(batches):
            expected = pytree.map(torch.clone, stepper.state)
            writer.save([Save(directory=str(tmp_path), name=f"step-{index}")], stepper.state, {})
            stepper(update, batch)
            writer.flush()
            read = checkpoint.read(tmp_path / f"step-{index}", state)[0]
            assert {leaf.device.type for leaf in pytree.leaves(read)} == {DEVICE}
            assert_same(read, expected)


@pytest.mark.parametrize("backend", ["trace", *COMPILED])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16-mixed", "fp16-mixed", "fp64"])
def test_every_precision_trains(precision: str, backend: str) -> None:
    switches = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    state, data = build(config(), on_device(backend, run__precision=precision, trainer__max_epochs=20))
    trained = fit(state, data)
    expected = torch.float64 if precision == "fp64" else torch.float32
    assert {leaf.dtype for leaf in pytree.leaves(trained.params)} == {expected}
    assert evaluate(trained, data)["loss"] < 0.7 * evaluate(state, data)["loss"]
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == switches


def test_half_precision_finds_its_loss_scale() -> None:
    state, data = build(config(), on_device("trace", run__precision="fp16-mixed"))
    state.slots["loss_scale"]["scale"].fill_(2.0**40)
    trained = fit(state, data)
    assert float(trained.slots["loss_scale"]["scale"]) < 2.0**40
    assert 0 < int(trained.step) < 15


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_members_end_as_they_would_alone(backend: str, strategy: str) -> None:
    states, data = build(small(replicate={"seeds": 3, "strategy": strategy}), on_device(backend))
    trained = fit(states, data)
    for index in range(3):
        solo = fit(*build(small(), on_device(backend, run__seed=index)))
        assert_trees_close(alone(member(trained, index)), alone(solo), 1e-9)


def test_a_layout_is_tried_out_and_fits_into_memory() -> None:
    assert free_bytes(torch.device(DEVICE)) > 2**20
    states, data = build(small(replicate={"seeds": 2, "strategy": "auto"}), on_device("trace"))
    assert int(fit(states, data).step.min()) == 10


def test_what_a_gpu_gives_the_host_is_all_there() -> None:
    x = torch.ones(4096, 1024, device=DEVICE)
    for _ in range(50):
        x = x * 1.0
    x += 1
    assert bool((to_device({"x": x}, torch.device("cpu"))["x"] == 2).all())


def test_a_loader_pins_and_moves_its_batches() -> None:
    loader = {"_type_": "data.dataloader", "dataset": {"_type_": "mine.pairs"}, "fields": ["x", "y"], "batch_size": 4}
    registry, runs = builtin_registry().register("mine.pairs", pairs), {}
    for device in ("cpu", DEVICE):
        state, data = build(config(data=loader), {"run.device": device}, registry=registry)
        runs[device] = list(data.batches("train", 0))
        assert {leaf.device.type for leaf in pytree.leaves(runs[device])} == {device}
        assert int(fit(state, data).step) == 15
    assert all(torch.equal(a["x"], b["x"].cpu()) for a, b in zip(runs["cpu"], runs[DEVICE], strict=True))


def pairs() -> torch.utils.data.Dataset[Any]:
    """Twenty examples."""
    x = torch.arange(60.0).reshape(20, 3) / 60
    return torch.utils.data.TensorDataset(x, x[:, :2])


def test_a_trained_module_comes_home() -> None:
    state, _ = build(config(), on_device("trace"))
    module = to_module(state)
    assert module(torch.zeros(2, 3, device=DEVICE)).device.type == DEVICE


def test_every_backend_can_be_timed() -> None:
    state, data = build(config(), on_device("trace"))
    timings = time_backends(state, data, backends_of(state.step.device), n_steps=5, rounds=2)
    assert [timing.backend for timing in timings] == list(BACKENDS)
    assert all(timing.problem is not None or timing.median > 0 for timing in timings)


def test_recordings_of_one_pool_do_not_disturb_each_other() -> None:
    recorder = cuda_graphs.recorder(torch.device(DEVICE, torch.cuda.current_device()))
    states = [torch.zeros(1000, device=DEVICE) for _ in range(3)]

    def move(state: Tensor, batch: Tensor) -> list[Tensor]:
        state += (batch * 2).relu()
        return [state.sum()]

    batch = torch.ones(1000, device=DEVICE)
    played = Recorded(move, (states[0], batch), (0,), recorder, "move")
    kept = [played(state, batch * (1 + index))[0] for _ in range(5) for index, state in enumerate(states)]
    assert [float(state[0]) for state in states] == [10.0, 20.0, 30.0]
    assert [float(total) for total in kept[-3:]] == [10_000.0, 20_000.0, 30_000.0]
    assert len(played.recordings) == 3


def test_the_cpu_in_an_argument_means_no_graphs(caplog: pytest.LogCaptureFixture) -> None:
    if reason := inductor.why_not("cpu"):
        pytest.skip(f"cannot compile here: {reason}")
    with caplog.at_level("INFO", "ftrainer.jit"):
        out = jit(lambda tree: tree["a"] * tree["b"], backend="cuda_graphs")(
            {"a": torch.ones(3, device=DEVICE), "b": torch.tensor(2.0)}
        )
    assert out.tolist() == [2.0, 2.0, 2.0]
    assert "runs without CUDA graphs, since 0/b is on the CPU" in caplog.text


def test_programs_differ_by_nothing_but_their_device() -> None:
    state, _ = build(config(), on_device("trace"))
    other, _ = build(config(), {"run.device": "cpu"})
    assert_trees_equal(here(attrs.evolve(state, program=None)), attrs.evolve(other, program=None))


def test_a_step_that_waits_for_the_gpu_cannot_be_recorded() -> None:
    """Last of all: a driver that refused a recording is in no state to promise much."""
    recorder = cuda_graphs.recorder(torch.device(DEVICE, torch.cuda.current_device()))
    stream = torch.cuda.current_stream()
    state = torch.ones(3, device=DEVICE)
    played = Recorded(lambda x: [x * float(x.sum())], (state,), (), recorder, "waiting")
    for _ in range(WARM_UP):
        played(state)
    with pytest.raises(RecordingError, match=r"waiting cannot be recorded as a CUDA graph"):
        played(state)
    assert torch.cuda.current_stream() == stream
    assert state.tolist() == [1.0, 1.0, 1.0]
