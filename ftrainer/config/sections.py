"""The top-level keys, and the two sections that are not components of the run: `run:` and `settings:`."""

from __future__ import annotations

from typing import Literal

from frozendict import frozendict

from registry.issue import invalid
from registry.settings import Settings
from registry.spec import component

SCHEMA_VERSION = 1

Precision = Literal["fp32", "tf32", "bf16-mixed", "fp16-mixed", "fp64"]


@component
class RunSettings:
    """The section `run:`.

    Attributes:
        name: what the run is called.
        out_dir: where it writes.
        seed: decides initial weights, order and noise, never the data's contents.
        device: `auto` takes CUDA where there is one.
        precision: the arithmetic of the step.
        deterministic: refuse kernels whose results differ from run to run.
        compile: how the step is executed: `eager`, `trace` (captured once, replayed), `inductor` (compiled whole),
            `cuda_graphs` (compiled whole, its kernels launched as one graph; on a GPU), or `auto`, which compiles long
            runs where a compiler is present, without CUDA graphs, which nobody has measured yet.
        resume_from: a checkpoint directory, or `auto` for the newest in `out_dir`.
    """

    name: str
    out_dir: str = "runs/${run.name}"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    deterministic: bool = False
    compile: Literal["eager", "trace", "inductor", "cuda_graphs", "auto"] = "auto"
    resume_from: str | None = None

    def __attrs_post_init__(self) -> None:
        if not self.name.strip() or "/" in self.name or "\0" in self.name:
            raise invalid("must be a name without slashes", "name", found=repr(self.name))
        if not self.out_dir.strip() or "\0" in self.out_dir:
            raise invalid("must be a directory", "out_dir", found=repr(self.out_dir))
        if not 0 <= self.seed < 2**63:
            raise invalid("must lie between 0 and 2**63 - 1", "seed", found=str(self.seed))


DEFAULTS = frozendict({"out_dir": "runs/${run.name}"})
"""What is filled in before interpolation, because others may refer to it."""

PREFIXES = frozendict(
    {
        "data": ("data.",),
        "io": ("io.",),
        "loss": ("loss.",),
        "optimizer": ("optim_factory.", "optim."),
        "scheduler": ("sched_factory.", "schedule."),
        "learner": ("learner.",),
        "trainer": ("trainer.",),
        "metrics": ("metric.",),
        "evaluators": ("eval.", "evaluator."),
        "callbacks": ("cb.",),
        "loggers": ("log.",),
    }
)
"""The families of registry keys that a section takes."""

SECTIONS = (
    "schema_version",
    "settings",
    "defaults",
    "imports",
    "run",
    "params",
    "model",
    "data",
    "io",
    "loss",
    "optimizer",
    "scheduler",
    "learner",
    "trainer",
    "metrics",
    "evaluators",
    "callbacks",
    "loggers",
    "replicate",
    "templates",
)
"""Every top-level key."""

REQUIRED = ("run", "model", "data", "trainer")
"""What no configuration can do without; what a learner needs is in its signature."""

SUPERVISED = ("io", "loss", "optimizer")
"""What `learner.supervised`, the default, needs besides."""

LISTS = ("metrics", "callbacks", "loggers")
MAPPINGS = ("evaluators",)

__all__ = [
    "DEFAULTS",
    "LISTS",
    "MAPPINGS",
    "PREFIXES",
    "REQUIRED",
    "SCHEMA_VERSION",
    "SECTIONS",
    "SUPERVISED",
    "Precision",
    "RunSettings",
    "Settings",
]
