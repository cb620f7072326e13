"""The bridge: a module as pure functions, and back."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ftrainer.functional.jit import jit
from ftrainer.functional.random import key
from ftrainer.functional.redirect import redirect
from ftrainer.model import from_module
from registry import ConfigError
from tests.models import scalar, sequential, tensors_of, typed

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight
        self.register_buffer("kept", torch.ones(5))
        self.register_buffer("passing", torch.full((5,), 2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) * self.kept * self.passing)


def mlp(width: int | None = 5, **beside: object) -> object:
    return sequential({"_type_": "mlp", "dims": [width, 7, 3], "activation": "tanh"}, **beside)


def test_the_same_key_gives_the_same_weights_and_torch_draws_as_before() -> None:
    before = torch.get_rng_state()
    one, two, other = (mlp().init(key(seed), {"x": X})[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["0.0.weight"], other["0.0.weight"])


def test_a_layer_starts_the_same_whatever_stands_before_it() -> None:
    norm = {"_type_": "nn.LayerNorm", "normalized_shape": 5}
    linear = {"_type_": "nn.Linear", "in_features": 5, "out_features": 2}
    wide = {"_type_": "nn.Linear", "in_features": 5, "out_features": 5}
    short, long = (sequential(first, linear).init(key(0), {"x": X})[0] for first in (norm, wide))
    assert torch.equal(short["1.weight"], long["1.weight"])


@pytest.mark.parametrize(
    ("lazy", "explicit", "shape"),
    [
        ({"_type_": "mlp", "dims": [None, 7, 3]}, {"_type_": "mlp", "dims": [5, 7, 3]}, (4, 5)),
        (
            {"_type_": "nn.LazyLinear", "out_features": 3},
            {"_type_": "nn.Linear", "in_features": 5, "out_features": 3},
            (4, 5),
        ),
        (
            {"_type_": "conv_bn_act", "in_channels": None, "out_channels": 4},
            {"_type_": "conv_bn_act", "in_channels": 3, "out_channels": 4},
            (2, 3, 6, 6),
        ),
        (
            {"_type_": "nn.LazyConv2d", "out_channels": 4, "kernel_size": 3, "groups": 2},
            {"_type_": "nn.Conv2d", "in_channels": 6, "out_channels": 4, "kernel_size": 3, "groups": 2},
            (2, 6, 5, 5),
        ),
        (
            {"_type_": "nn.LazyConvTranspose1d", "out_channels": 4, "kernel_size": 3},
            {"_type_": "nn.ConvTranspose1d", "in_channels": 6, "out_channels": 4, "kernel_size": 3},
            (2, 6, 5),
        ),
        ({"_type_": "nn.LazyBatchNorm1d"}, {"_type_": "nn.BatchNorm1d", "num_features": 5}, (4, 5)),
        (
            {"_type_": "residual_mlp", "in_features": None, "width": 4, "out_features": 2},
            {"_type_": "residual_mlp", "in_features": 5, "width": 4, "out_features": 2},
            (4, 5),
        ),
        (
            {"_type_": "gaussian_head", "in_features": None, "out_features": 2},
            {"_type_": "gaussian_head", "in_features": 5, "out_features": 2},
            (4, 5),
        ),
    ],
    ids=lambda value: value.get("_type_", "") if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_lazily_built_model_is_the_explicitly_built_one(lazy: dict, explicit: dict, shape: tuple[int, ...]) -> None:
    tail = {"_type_": "nn.Identity"}
    x = torch.randn(shape)
    (p, b), (q, c) = (sequential(first, tail).init(key(3), {"x": x}) for first in (lazy, explicit))
    assert {**p, **b}.keys() == {**q, **c}.keys()
    assert all(torch.equal(tensor, {**q, **c}[name]) for name, tensor in {**p, **b}.items())
    for train in (False, True):
        one, two = (sequential(first, tail).apply(p, b, {"x": x}, train=train)[0] for first in (lazy, explicit))
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert str(sequential(lazy, tail).to_module(p, b)) == str(sequential(explicit, tail).to_module(q, c))


def test_what_stands_behind_a_lazy_layer_starts_as_behind_an_explicit_one() -> None:
    tail = {"_type_": "nn.Linear", "in_features": 3, "out_features": 2}
    lazy, explicit = (
        sequential({"_type_": "mlp", "dims": [w, 7, 3]}, tail).init(key(0), {"x": X})[0] for w in (None, 5)
    )
    assert torch.equal(lazy["1.weight"], explicit["1.weight"])


def test_apply_changes_nothing_that_was_passed_in() -> None:
    model = from_module(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)))
    params, buffers = model.init(key(0), {"x": X})
    kept = copy.deepcopy((params, buffers))
    (one, new), (two, _) = (model.apply(params, buffers, {"x": X}, key(1), train=True) for _ in range(2))
    assert torch.equal(one, two)
    for now, then in zip((params, buffers), kept, strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)
    assert new["1.num_batches_tracked"] == 1
    assert new["1.num_batches_tracked"].dtype == torch.int64


def test_a_buffer_that_is_assigned_anew_is_returned() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return x

    model = from_module(Counts())
    params, buffers = model.init(key(0), {"x": X})
    assert model.apply(params, buffers, {"x": X})[1]["calls"] == 1
    assert buffers["calls"] == 0


def test_the_callers_module_is_never_changed() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    before, training = tensors_of(module), module.training
    model = from_module(module)
    params, buffers = model.init(key(0), {"x": X})
    model.apply(params, buffers, {"x": X}, train=False)
    model.apply(params, buffers, {"x": X}, train=True)
    with torch.no_grad():
        params["0.weight"].zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(module).items())
    assert module.training is training
    with torch.no_grad():
        module[0].weight.zero_()
    assert torch.equal(model.init(key(0), {"x": X})[0]["0.weight"], before["0.weight"])


def test_there_and_back_is_the_same_module() -> None:
    module = Tied().eval()
    model = from_module(module)
    back = model.to_module(*model.init(key(0), {"x": X}))
    assert back.b.weight is back.a.weight
    assert back.state_dict().keys() == module.state_dict().keys()
    assert {name for name, _ in back.named_buffers()} == {"kept", "passing"}
    assert all(torch.equal(tensor, tensors_of(module)[name]) for name, tensor in tensors_of(back).items())
    assert torch.equal(back(X), module(X))


def test_tied_weights_are_one_parameter_with_both_gradients() -> None:
    module = Tied()
    model = from_module(module)
    params, buffers = model.init(key(0), {"x": X})
    assert list(params) == ["a.weight", "a.bias", "b.bias"]
    grads = torch.func.grad(lambda p: scalar(model.apply(p, buffers, {"x": X}, train=True)[0]))(params)
    scalar(module(X)).backward()
    torch.testing.assert_close(grads["a.weight"], module.a.weight.grad)
    moved = {name: p - 0.1 * grads[name] for name, p in params.items()}
    back = model.to_module(moved, buffers)
    assert back.b.weight is back.a.weight
    torch.testing.assert_close(back(X), model.apply(moved, buffers, {"x": X})[0])


def test_ten_steps_move_the_running_statistics_as_torch_does() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    model, batches = from_module(module), torch.randn(10, 16, 5, dtype=torch.float64)
    params, buffers = model.init(key(0), {"x": batches[0]})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for x in batches:
        grads, buffers = torch.func.grad(_loss(model, buffers, x), has_aux=True)(params)
        params = {name: p - 0.01 * grads[name] for name, p in params.items()}
        optimizer.zero_grad()
        scalar(module(x)).backward()
        optimizer.step()
    for name, tensor in tensors_of(module).items():
        torch.testing.assert_close({**params, **buffers}[name], tensor, rtol=1e-12, atol=1e-12)


def _loss(model: object, buffers: dict, x: Tensor, name: str = "x") -> object:
    def loss(params: dict) -> tuple[Tensor, dict]:
        outputs, new = model.apply(params, buffers, {name: x}, train=True)
        return scalar(outputs), new

    return loss


def test_parametrised_and_recurrent_modules_differentiate_as_in_torch() -> None:
    for module, x in (
        (parametrizations.weight_norm(nn.Linear(5, 3)), X),
        (parametrizations.orthogonal(nn.Linear(5, 5)), X),
        (nn.GRU(5, 3, batch_first=True), torch.randn(2, 4, 5)),
    ):
        model = from_module(module, inputs=("input",))
        params, buffers = model.init(key(0), {"input": x})
        grads = torch.func.grad(_loss(model, buffers, x, "input"), has_aux=True)(params)[0]
        scalar(module(x)).backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad)


def test_inputs_go_by_name_where_forward_has_them_and_by_position_elsewhere() -> None:
    class Named(nn.Module):
        def forward(self, a: Tensor, b: Tensor, note: str | None = None) -> Tensor:
            return a - b if note is None else a

    one, two = torch.ones(2, 1), torch.zeros(2, 1)
    by_name = from_module(Named(), inputs=("b", "a"))
    assert torch.equal(by_name.apply({}, {}, {"a": one, "b": two})[0], one)
    by_position = from_module(Named(), inputs=("p", "q"))
    assert torch.equal(by_position.apply({}, {}, {"p": two, "q": one})[0], -one)
    with_text = from_module(Named(), inputs=("a", "b", "note"))
    assert torch.equal(with_text.apply({}, {}, {"a": one, "b": one, "note": "an id"})[0], one)


def test_a_second_build_finds_the_code_of_the_first() -> None:
    calls = []

    def factory(width: int) -> nn.Module:
        calls.append(width)
        return nn.Linear(5, width)

    one, two = (typed(factory, width=11) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != typed(factory, width=12)
    params, buffers = one.init(key(0), {"x": X})
    one.apply(params, buffers, {"x": X})
    n_calls = len(calls)
    two.apply(params, buffers, {"x": X})
    two.apply(params, buffers, {"x": X}, train=True)
    assert len(calls) == n_calls


def test_modules_are_compared_by_identity() -> None:
    module = nn.Linear(5, 2)
    one, two = from_module(module), from_module(module)
    assert one == one
    assert one != two


def test_the_code_may_be_built_in_the_middle_of_anything() -> None:
    x = torch.randn(4, 5)
    values = {"0.weight": torch.randn(3, 5), "0.bias": torch.randn(3)}
    spec = {"_type_": "nn.Linear", "in_features": 5, "out_features": 3}
    expected = torch.nn.functional.linear(x, values["0.weight"], values["0.bias"])

    def fresh(tag: int) -> object:
        return sequential(spec, {"_type_": "nn.Threshold", "threshold": -1e9, "value": float(tag)})

    models = [fresh(tag) for tag in range(3)]
    run = jit(lambda p: torch.func.grad(lambda q: scalar(models[0].apply(q, {}, {"x": x})))(p), backend="trace")
    assert run(values).keys() == values.keys()
    with redirect(None):
        torch.testing.assert_close(models[1].apply(values, {}, {"x": x})[0], expected)
    stacked = {name: torch.stack([tensor, tensor]) for name, tensor in values.items()}
    out = torch.vmap(lambda p: models[2].apply(p, {}, {"x": x})[0])(stacked)
    torch.testing.assert_close(out[1], expected)


def test_frozen_parameters_are_buffers_and_stay() -> None:
    model = mlp(freeze=["0.0.*"])
    params, buffers = model.init(key(0), {"x": X})
    assert set(params) == {"0.2.weight", "0.2.bias"}
    assert set(buffers) == {"0.0.weight", "0.0.bias"}
    outputs, new = model.apply(params, buffers, {"x": X}, train=True)
    assert new["0.0.weight"] is buffers["0.0.weight"]
    module = model.to_module(params, buffers)
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["0.2.weight", "0.2.bias"]
    torch.testing.assert_close(module(X), outputs)


def test_a_parameter_that_wants_no_gradient_is_frozen() -> None:
    module = nn.Linear(5, 2)
    module.bias.requires_grad_(False)
    params, buffers = from_module(module).init(key(0), {"x": X})
    assert (list(params), list(buffers)) == (["weight"], ["bias"])


def test_a_pattern_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze\[1\]: the pattern matches nothing; found '1\.\*'"):
        mlp(freeze=["0.0.*", "1.*"]).init(key(0), {"x": X})


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze: leaves nothing to train; found \*"):
        mlp(freeze=["*"]).init(key(0), {"x": X})


def test_modules_inside_torchs_containers_come_from_nested_specs() -> None:
    inner = {
        "_type_": "nn.Sequential",
        "_args_": [{"_type_": "nn.LazyLinear", "out_features": 4}, {"_type_": "nn.Tanh"}],
    }
    layer = {
        "_type_": "nn.TransformerEncoderLayer",
        "d_model": 4,
        "nhead": 2,
        "dim_feedforward": 8,
        "batch_first": True,
    }
    encoder = {
        "_type_": "nn.TransformerEncoder",
        "encoder_layer": layer,
        "num_layers": 2,
        "enable_nested_tensor": False,
    }
    model, x = sequential(inner, encoder), torch.randn(2, 3, 5)
    params, buffers = model.init(key(0), {"x": x})
    assert {"0.0.weight", "1.layers.1.linear1.weight"} <= set(params)
    assert model.apply(params, buffers, {"x": x}, key(1), train=True)[0].shape == (2, 3, 4)


def test_statistics_of_a_normaliser_are_handed_through() -> None:
    model = sequential({"_type_": "normalize", "field": "x"})
    params, buffers = model.init(key(0), {"x": X}, {"x": {"mean": X.mean(0), "std": X.std(0)}})
    new = model.apply(params, buffers, {"x": X}, train=True)[1]
    assert all(new[name] is tensor for name, tensor in buffers.items())


def test_a_module_taken_over_is_let_go_with_its_model() -> None:
    model = from_module(nn.Linear(5, 2))
    held = weakref.ref(model.factory.factory.module)
    model.apply(*model.init(key(0), {"x": X}), {"x": X})
    del model
    gc.collect()
    assert held() is None


def test_tensors_of_another_model_are_refused() -> None:
    params, buffers = mlp().init(key(0), {"x": X})
    with pytest.raises(ValueError, match=r"not those of this model: 0\.0\.bias"):
        mlp().apply({name: p for name, p in params.items() if name != "0.0.bias"}, buffers, {"x": X})


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    module = nn.Linear(5, 2)
    module.cache = module.weight * 2
    with pytest.raises(TypeError, match="Linear cannot be copied"):
        from_module(module)


def test_inputs_that_io_does_not_give_or_that_nobody_takes_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"model: the model takes an input 'x' that `io` does not give it; found xs; did you mean 'xs'",
    ):
        mlp().init(key(0), {"xs": X})
    with pytest.raises(ConfigError, match="gives the model what it does not take: y; expected x"):
        mlp().init(key(0), {"x": X, "y": X})
    params, buffers = mlp().init(key(0), {"x": X})
    with pytest.raises(ConfigError, match="misses its input 'x'"):
        mlp().apply(params, buffers, {"y": X})
