"""Train PyTorch models from one YAML file, the way JAX programs train: pure steps over immutable values.

>>> from ftrainer import build, fit, to_module
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftrainer.builtins import builtin_registry
    from ftrainer.engine.inference import evaluate, predict, to_module
    from ftrainer.engine.loop import fit, iterate
    from ftrainer.engine.replicas import replicate
    from ftrainer.experiment import build, run_experiment
    from ftrainer.functional.jit import jit
    from ftrainer.functional.replicate import member, stack, unstack
    from ftrainer.functional.state import TrainState
    from ftrainer.model import from_module
    from ftrainer.revisit.revive import load
    from registry import ConfigError, Registry

_HOMES = {
    "ConfigError": "registry",
    "Registry": "registry",
    "TrainState": "ftrainer.functional.state",
    "build": "ftrainer.experiment",
    "builtin_registry": "ftrainer.builtins",
    "evaluate": "ftrainer.engine.inference",
    "fit": "ftrainer.engine.loop",
    "from_module": "ftrainer.model",
    "iterate": "ftrainer.engine.loop",
    "jit": "ftrainer.functional.jit",
    "load": "ftrainer.revisit.revive",
    "member": "ftrainer.functional.replicate",
    "predict": "ftrainer.engine.inference",
    "replicate": "ftrainer.engine.replicas",
    "run_experiment": "ftrainer.experiment",
    "stack": "ftrainer.functional.replicate",
    "to_module": "ftrainer.engine.inference",
    "unstack": "ftrainer.functional.replicate",
}
"""Where each name lives. It is imported when first asked for, so that `ftrainer --help` does not load torch."""

__all__ = [
    "ConfigError",
    "Registry",
    "TrainState",
    "build",
    "builtin_registry",
    "evaluate",
    "fit",
    "from_module",
    "iterate",
    "jit",
    "load",
    "member",
    "predict",
    "replicate",
    "run_experiment",
    "stack",
    "to_module",
    "unstack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
