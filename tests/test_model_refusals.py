"""What a pure step cannot hold, refused by name before training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad
from torch.utils.checkpoint import checkpoint

from ftrainer.config import resolve_config
from ftrainer.experiment import run_experiment
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.jit import jit
from ftrainer.functional.random import key
from ftrainer.model import blamed, build_model, from_module
from registry import ConfigError
from tests.models import REGISTRY, scalar, sequential, typed
from tests.toys import Doubled

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

CONV = {"_type_": "nn.Conv1d", "in_channels": 3, "out_channels": 4, "kernel_size": 1}
MISSPELT = {"sequential": {}, "freze": []}
TWO = {"sequential": {"layers": [{"_type_": "nn.ReLU"}], "inputs": ["a", "b"]}}
NEGATIVE = {"sequential": {"layers": [{"_type_": "nn.Linear", "in_features": -3, "out_features": 2}]}}


class Counting(nn.Module):
    """Counts its calls in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Caching(nn.Module):
    """Keeps its last input."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x


class Appending(nn.Module):
    """Keeps a list of what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.shape)
        return x


class Writing(nn.Module):
    """Writes to a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(1)
        return x


class Learning(nn.Module):
    """Keeps a table by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.table["n"] = len(x)
        return x


@pytest.mark.parametrize(
    ("module", "attribute"),
    [(Counting, "calls"), (Caching, "last"), (Appending, "seen"), (Learning, "table")],
)
def test_a_module_that_changes_itself_outside_its_buffers_is_named(module: type, attribute: str) -> None:
    registry = REGISTRY.register("mine", module)
    layers = {"layers": [{"_type_": "nn.Identity"}, {"_type_": "mine"}]}
    model = build_model(registry, {"sequential": layers})
    expected = rf"model\.sequential\.layers\[1\]: layer '1' \({module.__name__}\) changes its attribute '{attribute}'"
    with pytest.raises(ConfigError, match=expected):
        model.init(key(0), {"x": X})


def test_a_module_that_writes_to_a_tensor_of_its_own_is_named() -> None:
    expected = r"Writing writes in place to a tensor that is neither a buffer nor an input.*register_buffer"
    with pytest.raises(ConfigError, match=expected):
        typed(Writing).init(key(0), {"x": X})


def test_a_module_of_ones_own_that_changes_only_buffers_is_taken() -> None:
    class Fine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))
            self.offset, self.names = torch.ones(3), ["a"]

        def forward(self, x: Tensor) -> Tensor:
            self.seen += x.detach().sum(0)
            return x + self.offset

    model = from_module(Fine())
    params, buffers = model.init(key(0), {"x": X})
    torch.testing.assert_close(model.apply(params, buffers, {"x": X})[1]["seen"], X.sum(0))
    run = jit(lambda b, x: model.apply({}, b, {"x": x}), backend="trace")
    torch.testing.assert_close(run(buffers, X)[0], X + 1)


class Old(torch.autograd.Function):
    """An `autograd.Function` of the old style."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


class New(Doubled):
    """The same, as `torch.func` wants it."""

    generate_vmap_rule = True


class Uses(nn.Module):
    """A layer that calls an `autograd.Function`."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(self.linear(x))


def test_an_old_style_function_is_refused_by_its_class_with_the_cure() -> None:
    expected = (
        r"layer '1' \(Uses\) uses Old, an autograd\.Function of the old style.*setup_context\(ctx, inputs, output\)"
    )
    with pytest.raises(ConfigError, match=expected):
        from_module(nn.Sequential(nn.Linear(3, 3), Uses(Old))).init(key(0), {"x": X})
    model = from_module(Uses(New))
    params, buffers = model.init(key(0), {"x": X})
    grads = torch.func.grad(lambda p: scalar(model.apply(p, buffers, {"x": X})[0]))(params)
    assert torch.isfinite(grads["linear.weight"]).all()


class Hooked(nn.Linear):
    """A layer that wants to be told its gradients, as its argument says."""

    def __init__(self, how: str) -> None:
        super().__init__(3, 2)
        at = self if "full" in how else self.weight
        getattr(at, how)(lambda *told: None)


@pytest.mark.parametrize("how", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_parameter_is_refused_by_the_parameters_name(how: str) -> None:
    registry = REGISTRY.register("mine", Hooked)
    match = r"parameter '1\.weight' has a hook, which would never be called \(.*`output\.register_hook"
    with pytest.raises(ConfigError, match=rf"model\.sequential\.layers\[1\]: {match}"):
        build_model(registry, {"sequential": {"layers": [{"_type_": "nn.ReLU"}, {"_type_": "mine", "how": how}]}})
    with pytest.raises(ConfigError, match=f"model: {match}"):
        from_module(nn.Sequential(nn.ReLU(), Hooked(how)))


@pytest.mark.parametrize("how", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_is_refused_by_the_layers_name(how: str) -> None:
    with pytest.raises(ConfigError, match=r"layer '1' \(Hooked\) has a backward hook, .*hook a tensor inside"):
        from_module(nn.Sequential(nn.Linear(3, 3), Hooked(how))).init(key(0), {"x": X})


class HookingInside(nn.Linear):
    """Halves the gradients of its weight, from inside."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.register_hook(lambda gradient: gradient / 2)
        return super().forward(x)


def test_a_hook_inside_forward_is_called_as_the_message_says() -> None:
    module = HookingInside(3, 2)
    model = from_module(module)
    params, buffers = model.init(key(0), {"x": X})

    def gradient(params: Any) -> Any:
        return grad(lambda p: model.apply(p, buffers, {"x": X}, train=True)[0].square().sum())(params)

    module(X).square().sum().backward()
    for found in (gradient(params), jit(gradient)(params)):
        torch.testing.assert_close(found["weight"], module.weight.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_is_refused_by_the_layer_that_uses_it_with_the_cure(reentrant: bool) -> None:
    class Frugal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.linear, x, use_reentrant=reentrant)

    with pytest.raises(ConfigError, match=r"Frugal.* uses torch\.utils\.checkpoint.*gradient_checkpointing_disable"):
        typed(Frugal).init(key(0), {"x": X})


class Branching(nn.Module):
    """Decides on a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_names_the_layer_and_its_line_and_runs_eager() -> None:
    registry = REGISTRY.register("branching", Branching)
    layers = [{"_type_": "nn.Identity"}, {"_type_": "branching"}]
    model = build_model(registry, {"sequential": {"layers": layers}})
    params, buffers = model.init(key(0), {"x": X})
    torch.testing.assert_close(model.apply(params, buffers, {"x": X})[0], Branching()(X))
    with pytest.raises(TraceError) as caught:
        jit(lambda x: model.apply(params, buffers, {"x": x})[0], backend="trace")(X)
    told = str(model.blame(caught.value))
    line = "`return x if x.sum() > 0 else -x` asks for the value of a tensor"
    assert f"model.sequential.layers[1]: layer '1' (Branching) cannot be traced: {line}" in told
    assert str(blamed(caught.value)) == told
    assert blamed(ValueError("elsewhere")) is None
    assert "found float32 (4, 3)" in told


def test_an_operator_that_cannot_be_traced_is_named() -> None:
    class Comparing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if torch.equal(x, x) else -x

    model = typed(Comparing)
    with pytest.raises(TraceError) as caught:
        jit(lambda x: model.apply({}, {}, {"x": x})[0], backend="trace")(X)
    assert re.search(r"Comparing cannot be traced: aten\.equal\S* asks for", str(model.blame(caught.value)))


YAML = """\
schema_version: 1
model:
  sequential:
    layers:
      - {_type_: nn.Flatten}
      - _type_: nn.Linear
        in_features: 7
        out_features: 2
"""


def test_a_shape_clash_names_line_and_column_of_the_layer_and_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "clash.yaml"
    path.write_text(YAML)
    resolved = resolve_config(path)
    model = build_model(REGISTRY, resolved.data["model"])
    with pytest.raises(ConfigError) as caught:
        model.init(key(0), {"x": X})
    (issue,) = resolved.located(caught.value).issues
    assert str(issue.where).endswith("clash.yaml:6:9")
    assert issue.problem.startswith("layer '1' (Linear) fails: RuntimeError")
    assert (issue.found, issue.expected) == ("float32 (4, 3)", "shape (…, 7)")


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        (CONV, (2, 1, 5), "shape (batch, 3, …)"),
        ({"_type_": "nn.BatchNorm1d", "num_features": 4}, (2, 3), "shape (batch, 4, …)"),
        ({"_type_": "nn.LayerNorm", "normalized_shape": 4}, (2, 3), "shape (…, *(4,))"),
        ({"_type_": "nn.GRU", "input_size": 4, "hidden_size": 4}, (2, 3, 3), "shape (batch, time, 4)"),
        ({"_type_": "mlp", "dims": [4, 2]}, (2, 3), "shape (…, 4)"),
    ],
)  # fmt: skip
def test_a_layer_says_what_it_expects(spec: dict[str, Any], shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sequential(spec).init(key(0), {"x": torch.zeros(shape)})
    (issue,) = caught.value.issues
    assert issue.path == ("model", "sequential", "layers", 0)
    assert issue.expected == expected


def test_a_clash_behind_a_lazy_layer_is_found_while_shapes_are_inferred() -> None:
    wrong = {"_type_": "nn.Linear", "in_features": 9, "out_features": 2}
    with pytest.raises(ConfigError, match=r"layers\[1\]: layer '1' \(Linear\) fails.*found float32 \(4, 8\)"):
        sequential({"_type_": "nn.LazyLinear", "out_features": 8}, wrong).init(key(0), {"x": X})


def test_an_error_without_a_layer_lies_under_the_model() -> None:
    told = str(sequential({"_type_": "nn.Identity"}).blame(ValueError("elsewhere")))
    assert told == "model.sequential: the model fails: ValueError: elsewhere"


@pytest.mark.parametrize(
    ("message", "section"),
    [
        ("model: is no model; found 'mlp'; expected exactly one of sequential, graph, _type_", "mlp"),
        ("model: does not say what kind of model; found layers", {"layers": []}),
        ("model: does not say what kind of model; found sequential and graph", {"sequential": {}, "graph": {}}),
        ("model.freze: unknown key; found 'freze'; expected freeze, init_from, initializers, sequential", MISSPELT),
        ("model.sequential: has the wrong type; found a list; expected a mapping", {"sequential": []}),
        ("model.sequential.layers: is required and missing", {"sequential": {}}),
        ("model.sequential.layers: has no layers", {"sequential": {"layers": []}}),
        ("model.sequential.inputs: takes exactly one input; a graph takes several; found a, b", TWO),
        ("_type_: unknown registry key; found 'model.torchh'; did you mean 'model.torch'", {"_type_": "model.torchh"}),
        ("model.sequential.layers[0]: nn.Linear cannot be built: RuntimeError", NEGATIVE),
    ],
)  # fmt: skip
def test_what_a_section_cannot_be(message: str, section: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(REGISTRY, section)
    assert message in str(caught.value)


def test_the_forms_extras_and_layers_report_together() -> None:
    section = {"sequential": {"layers": [{"_type_": "nn.Liner"}]}, "initializers": [{"match": "*", "init": "zero"}]}
    with pytest.raises(ConfigError) as caught:
        build_model(REGISTRY, section)
    assert [issue.path[1] for issue in caught.value.issues] == ["sequential", "initializers"]


def test_a_model_of_somebody_elses_is_handed_on_but_takes_no_extras() -> None:
    registry = REGISTRY.register("theirs", lambda width: width)
    assert build_model(registry, {"_type_": "theirs", "width": 3}) == 3
    with pytest.raises(ConfigError, match="model: freeze need a model of torch modules; found int"):
        build_model(registry, {"_type_": "theirs", "width": 3, "freeze": ["*"]})


BRANCH = """\
schema_version: 1
run: {name: branch, out_dir: OUT, compile: trace}
model:
  sequential:
    layers:
      - {_type_: nn.Linear, in_features: 3, out_features: 2}
      - _type_: branching
data: {_type_: data.random_regression, batch_size: 4, steps_per_epoch: 2, x_shape: [3], y_shape: [2]}
io: {_type_: io.mapping, model_kwargs: {x: [x]}, targets: {y: [y]}}
loss: {_type_: loss.torch, fn: {_type_: nn.MSELoss}}
optimizer: {_type_: optim.sgd, lr: 0.1}
trainer: {_type_: trainer.default, max_steps: 2}
"""


def test_a_run_that_cannot_be_traced_names_the_line_of_the_layer(tmp_path: Path) -> None:
    path = tmp_path / "branch.yaml"
    path.write_text(BRANCH.replace("OUT", str(tmp_path / "run")))
    with pytest.raises(ConfigError) as caught:
        run_experiment(path, registry=REGISTRY.register("branching", Branching))
    (issue,) = caught.value.issues
    assert str(issue.where).endswith("branch.yaml:7:9")
    assert "layer '1' (Branching) cannot be traced" in issue.problem
