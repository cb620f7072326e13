"""The contestants: each trains a workload, and says what one of its steps took.

A contestant is `(workload) -> runner`; the runner trains `workload.steps` steps more and returns seconds per step.
Building, tracing and compiling happen before, and in a first run that nobody looks at.
"""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftrainer import build, builtin_registry, fit
from ftrainer.engine.stepper import Stepper, update
from ftrainer.functional import pytree

from .harness import Runner
from .workloads import FACTORIES, LR, WEIGHT_DECAY, Batch, Workload

Contestant = Callable[[Workload], Runner]
ACCELERATORS: Mapping[str, str] = MappingProxyType({"cpu": "cpu", "cuda": "gpu"})
"""What Lightning's `Trainer` calls a device."""


def hand_written(workload: Workload) -> Runner:
    """The loop that everyone writes, with torch's fused AdamW."""
    module, batches = workload.module().train(), workload.batches()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def run() -> float:
        begin = time.perf_counter()
        for index in range(workload.steps):
            batch = batches[index % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            loss = F.mse_loss(module(batch["x"]), batch["y"])
            loss.backward()
            optimizer.step()
        workload.wait()
        return (time.perf_counter() - begin) / workload.steps

    return run


def fabric(workload: Workload) -> Runner:
    """The same loop through Lightning Fabric."""
    from lightning.fabric import Fabric  # noqa: PLC0415 (a peer that need not be installed)

    quiet_lightning()
    raw, batches = workload.module().train(), workload.batches()
    lightning = Fabric(accelerator=workload.device, devices=1)
    module, optimizer = lightning.setup(
        raw, torch.optim.AdamW(raw.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    )

    def run() -> float:
        begin = time.perf_counter()
        for index in range(workload.steps):
            batch = batches[index % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            lightning.backward(F.mse_loss(module(batch["x"]), batch["y"]))
            optimizer.step()
        workload.wait()
        return (time.perf_counter() - begin) / workload.steps

    return run


def trainer(workload: Workload) -> Runner:
    """Lightning's `Trainer.fit`, from call to return as ours, with the loss logged and all else off that can be."""
    import lightning  # noqa: PLC0415 (a peer that need not be installed)

    quiet_lightning()

    class Regression(lightning.LightningModule):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

        def training_step(self, batch: Batch) -> Tensor:
            loss = F.mse_loss(self.module(batch["x"]), batch["y"])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    model, batches = Regression(workload.module()), workload.batches()

    def run() -> float:
        begin = time.perf_counter()
        lightning.Trainer(
            accelerator=ACCELERATORS[workload.device], devices=1, max_steps=workload.steps, log_every_n_steps=10,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(model, Repeated(batches, workload.steps))  # fmt: skip
        workload.wait()
        return (time.perf_counter() - begin) / workload.steps

    return run


class Repeated:
    """Some batches, over and over: Lightning takes a list for several loaders."""

    def __init__(self, batches: list[Batch], n: int):
        self.batches, self.n = batches, n

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[index % len(self.batches)] for index in range(self.n))

    def __len__(self) -> int:
        return self.n


def quiet_lightning() -> None:
    """No hints, no lines about hardware."""
    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def configuration(workload: Workload, backend: str) -> dict[str, Any]:
    """The workload as a user of ftrainer writes it: its defaults, so with the guard and a log row every 10 steps."""
    return {
        "run": {"name": "benchmark", "compile": backend, "device": workload.device},
        "model": {"_type_": "model.torch", "factory": {"_type_": f"benchmark.{workload.kind}", **workload.sizes}},
        "data": {"_type_": "data.random_regression", "batch_size": workload.batch_size, "steps_per_epoch": 8,
                 "x_shape": list(workload.shape), "y_shape": [6]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": LR, "weight_decay": WEIGHT_DECAY},
        "trainer": {"_type_": "trainer.default", "max_steps": workload.steps},
    }  # fmt: skip


def state_of(workload: Workload, backend: str, overrides: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A state at step zero that holds the workload's own weights."""
    registry = builtin_registry()
    for kind, factory in FACTORIES.items():
        registry = registry.register(f"benchmark.{kind}", factory)
    state, _ = build(configuration(workload, backend), overrides, registry=registry)
    for name, tensor in workload.module().named_parameters():
        state.params["model"][name].copy_(tensor.detach())
    return state


def whole_fit(backend: str) -> Contestant:
    """`fit` on one epoch, from call to return: the copy of the state, the loop and its log included."""

    def contestant(workload: Workload) -> Runner:
        state, batches = state_of(workload, backend), list(Repeated(workload.batches(), workload.steps))

        def run() -> float:
            begin = time.perf_counter()
            fit(state, batches)
            workload.wait()
            return (time.perf_counter() - begin) / workload.steps

        return run

    return contestant


def bare_step(backend: str) -> Contestant:
    """The compiled step alone, called in a loop."""

    def contestant(workload: Workload) -> Runner:
        state, batches = state_of(workload, backend), workload.batches()
        stepper = Stepper(pytree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, state), backend)

        def run() -> float:
            begin = time.perf_counter()
            for index in range(workload.steps):
                stepper(update, batches[index % len(batches)])
            workload.wait()
            return (time.perf_counter() - begin) / workload.steps

        return run

    return contestant


def jax_optax(workload: Workload) -> Runner:
    """JAX: one jitted step with donated state, optax's AdamW, as its documentation writes it."""
    import jax  # noqa: PLC0415 (a peer that need not be installed)

    from . import jax_models  # noqa: PLC0415

    on_host = workload.on("cpu")  # JAX moves what it is given to its own device
    advance, state = jax_models.step_of(on_host)
    batches = [{name: jax.numpy.asarray(value.numpy()) for name, value in batch.items()} for batch in on_host.batches()]

    def run() -> float:
        nonlocal state
        begin = time.perf_counter()
        for index in range(workload.steps):
            state, loss = advance(state, batches[index % len(batches)])
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - begin) / workload.steps

    return run


HAND = "hand-written"
CONTESTANTS: Mapping[str, Contestant] = MappingProxyType(
    {
        HAND: hand_written,
        "fit, inductor": whole_fit("inductor"),
        "bare step, inductor": bare_step("inductor"),
        "fit, cuda_graphs": whole_fit("cuda_graphs"),
        "bare step, cuda_graphs": bare_step("cuda_graphs"),
        "fit, trace": whole_fit("trace"),
        "fabric": fabric,
        "Trainer": trainer,
        "JAX + optax": jax_optax,
    }
)
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"fabric": ("lightning",), "Trainer": ("lightning",), "JAX + optax": ("jax", "optax")}
)


def is_there(name: str, workload: Workload) -> bool:
    """Whether a contestant's packages are installed, and it knows the workload and its device."""
    installed = all(importlib.util.find_spec(package) is not None for package in NEEDS.get(name, ()))
    if name == "JAX + optax":
        return installed and workload.kind in JAX_KINDS and jax_device() == workload.device
    return installed and (workload.device == "cuda" or not name.endswith("cuda_graphs"))


def jax_device() -> str:
    """Where JAX computes, if it is there, as torch calls it."""
    import jax  # noqa: PLC0415 (a peer that need not be installed)

    return {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())


JAX_KINDS = ("mlp", "conv_net", "transformer")
