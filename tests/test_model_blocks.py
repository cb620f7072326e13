"""The blocks: what each computes, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ftrainer.functional.random import key
from ftrainer.model.blocks.activations import activations, make_activation
from ftrainer.model.blocks.attention import Attention
from ftrainer.model.blocks.conv_bn_act import ConvBnAct
from ftrainer.model.blocks.gaussian_head import GaussianHead, log_prob, sample
from ftrainer.model.blocks.mlp import MLP
from ftrainer.model.blocks.normalize import Normalize
from ftrainer.model.blocks.positional_encoding import PositionalEncoding
from ftrainer.model.blocks.residual import Residual
from ftrainer.model.blocks.residual_mlp import ResidualMLP
from ftrainer.model.blocks.sinusoid import sinusoid
from ftrainer.model.blocks.time_embedding import TimeEmbedding
from ftrainer.model.blocks.transformer_decoder import TransformerDecoder
from ftrainer.model.blocks.transformer_encoder import TransformerEncoder
from registry import ConfigError
from tests.models import sequential

F64 = torch.float64


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_an_mlp_has_activations_and_dropout_between_its_layers_only() -> None:
    assert kinds(MLP([4, 8, 8, 2], dropout=0.1)) == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert kinds(MLP([4, 2], final_activation="tanh")) == ["Linear", "Tanh"]
    assert MLP([4, 2], bias=False)[0].bias is None


def test_no_activation_or_norm_is_shared() -> None:
    deep = MLP([4, 8, 8, 2], activation=nn.PReLU())
    assert deep[1] is not deep[3]
    given_norm, given_act = nn.GroupNorm(2, 8), nn.PReLU()
    one, two = (ConvBnAct(3, 8, norm=given_norm, act=given_act) for _ in range(2))
    assert len({id(one.norm), id(two.norm), id(given_norm)}) == 3
    assert len({id(one.act), id(two.act), id(given_act)}) == 3
    block = Residual(in_channels=4, act=nn.PReLU())
    acts = [layer for layer in block.modules() if isinstance(layer, nn.PReLU)]
    assert len(acts) == 2


def test_a_spec_as_activation_makes_one_instance_a_place() -> None:
    model = sequential({"_type_": "mlp", "dims": [3, 8, 8, 2], "activation": {"_type_": "nn.PReLU", "init": 0.1}})
    params, _ = model.init(key(0), {"x": torch.zeros(2, 3)})
    assert params["0.1.weight"] == params["0.3.weight"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(activations()))
def test_an_activation_by_name_is_that_of_torch(name: str) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    module = make_activation(name.upper()).eval()
    assert type(module).__module__.startswith("torch.nn")
    torch.testing.assert_close(module(x), make_activation(name).eval()(x))


@pytest.mark.parametrize(
    ("bias", "norm", "expected"),
    [(None, None, False), (True, None, True), (None, nn.Identity(), True), (False, nn.Identity(), False)],
)
def test_a_convolution_has_no_bias_in_front_of_a_norm_unless_asked_for(
    bias: bool | None, norm: nn.Module | None, expected: bool
) -> None:
    assert (ConvBnAct(3, 8, bias=bias, norm=norm).conv.bias is not None) is expected


def test_a_residual_block_goes_around_by_the_identity_where_it_can() -> None:
    assert isinstance(Residual(in_channels=4).skip, nn.Identity)
    for changed in (Residual(in_channels=4, out_channels=8), Residual(in_channels=4, stride=2)):
        assert isinstance(changed.skip, ConvBnAct)
    block, x = Residual(in_channels=4).eval(), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), torch.relu(block.main2(block.main1(x)) + x))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_encoder_is_that_of_torch(norm_first: bool, causal: bool, masked: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    norm = nn.LayerNorm(8) if norm_first else None
    theirs = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False).double()
    ours = TransformerEncoder(8, 2, 2, 16, 0.0, "gelu", causal, norm_first).double()
    ours.load_state_dict(theirs.state_dict())
    x, real = (
        torch.randn(3, 5, 8, dtype=F64),
        torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]]),
    )
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=F64).isinf() if causal else None
    expected = theirs(x, mask, ~real if masked else None)
    out = ours(x, real) if masked else ours(x)
    keep = real if masked else torch.ones_like(real)
    torch.testing.assert_close(out[keep], expected[keep], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_decoder_is_that_of_torch(norm_first: bool, causal: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(8, 2, 16, 0.0, "relu", batch_first=True, norm_first=norm_first)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8) if norm_first else None).double()
    ours = TransformerDecoder(8, 2, 2, 16, 0.0, "relu", causal, norm_first).double()
    ours.load_state_dict(theirs.state_dict())
    x, memory = torch.randn(3, 5, 8, dtype=F64), torch.randn(3, 4, 8, dtype=F64)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=F64) if causal else None
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, mask), rtol=1e-12, atol=1e-12)


def test_a_causal_encoder_does_not_see_what_comes_later() -> None:
    block = TransformerEncoder(8, 2, 2, 16, causal=True).eval()
    x = torch.randn(1, 6, 8)
    torch.testing.assert_close(block(x)[:, :3], block(x[:, :3]))


@given(st.integers(1, 12), st.integers(0, 200))
def test_waves_are_those_of_the_paper(half: int, position: int) -> None:
    features = sinusoid(torch.tensor(float(position), dtype=F64), 2 * half)
    for i in range(half):
        angle = position / 10_000 ** (2 * i / (2 * half))
        assert features[2 * i] == pytest.approx(math.sin(angle), abs=1e-9)
        assert features[2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-9)


def test_time_and_position_use_the_waves() -> None:
    t = torch.tensor([0.0, 0.25])
    torch.testing.assert_close(TimeEmbedding(8, scale=1000.0)(t[:, None]), sinusoid(t * 1000, 8))
    x = torch.zeros(2, 5, 8)
    torch.testing.assert_close(PositionalEncoding(8)(x)[1], sinusoid(torch.arange(5.0), 8))
    learned = PositionalEncoding(8, kind="learned", max_len=6)
    torch.testing.assert_close(learned(x)[0], learned.table[:5])


def test_residual_blocks_add_to_their_input() -> None:
    block = ResidualMLP(3, width=4, out_features=2, depth=3)
    with torch.no_grad():
        for inner in block.blocks:
            inner[-1].weight.zero_()
            inner[-1].bias.zero_()
    x = torch.randn(5, 3)
    torch.testing.assert_close(block(x), block.last(block.norm(block.first(x))))


@pytest.mark.parametrize("squash", [False, True])
def test_the_gaussian_heads_density_is_that_of_torch(squash: bool) -> None:
    head = GaussianHead(4, 2, squash=squash).double()
    outputs = head(torch.randn(6, 4, dtype=F64))
    action = sample(outputs, key(0), squash)
    base = torch.distributions.Normal(outputs["mean"], outputs["log_std"].exp())
    expected = base
    if squash:
        expected = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform())
    torch.testing.assert_close(
        log_prob(outputs, action, squash), expected.log_prob(action).sum(-1), rtol=1e-8, atol=1e-8
    )
    assert (action.abs() < 1).all() or not squash
    assert torch.equal(outputs["action"], outputs["mean"].tanh() if squash else outputs["mean"])
    assert torch.isfinite(log_prob(outputs, torch.ones_like(action), squash)).all()


def test_the_gaussian_heads_spread_is_bounded_and_may_be_a_parameter() -> None:
    head = GaussianHead(4, 2, log_std_min=-1.0, log_std_max=0.5, state_dependent=False)
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-9.0, 9.0]))
    torch.testing.assert_close(head(torch.zeros(3, 4))["log_std"][2], torch.tensor([-1.0, 0.5]))


def test_observations_are_normalised_with_the_floor_added() -> None:
    x = torch.randn(64, 3) * torch.tensor([1.0, 5.0, 0.0]) + 2
    stats = {"obs": {"mean": x.mean(0).double(), "std": x.std(0, correction=0).double()}}
    model = sequential({"_type_": "normalize", "field": "obs", "floor": 0.1})
    params, buffers = model.init(key(0), {"x": x}, stats)
    expected = (x - x.mean(0)) / (x.std(0, correction=0) + 0.1)
    torch.testing.assert_close(model.apply(params, buffers, {"x": x}, train=True)[0], expected)
    assert {name: tensor.shape for name, tensor in buffers.items()} == {"0.mean": (3,), "0.std": (3,)}
    torch.testing.assert_close(model.to_module(params, buffers)(x), expected)
    assert torch.equal(model.apply(*model.init(key(0), {"x": x}), {"x": x})[0], x / 1.1)


def test_a_field_without_statistics_is_refused_with_its_place() -> None:
    model = sequential({"_type_": "nn.Identity"}, {"_type_": "normalize", "field": "obs"})
    with pytest.raises(
        ConfigError, match=r"model\.sequential\.layers\[1\]\.field: the data has no statistics .*'obss'"
    ):
        model.init(key(0), {"x": torch.zeros(2, 3)}, {"obss": {}})
    with pytest.raises(ConfigError, match="expected a data source that computes statistics"):
        model.init(key(0), {"x": torch.zeros(2, 3)}, {})


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("dims: needs an input and an output width; found \\[4\\]", lambda: MLP([4])),
        (r"dims\[1\]: a width is a positive integer; only the first may be null", lambda: MLP([4, None])),
        (r"dims\[0\]: .*found 0", lambda: MLP([0, 4])),
        ("activation: unknown activation; found 'rellu'; .* did you mean 'relu'", lambda: MLP([4, 4, 4], "rellu")),
        ("final_activation: unknown activation", lambda: MLP([4, 4], final_activation="x")),
        ("act: unknown activation", lambda: ConvBnAct(3, 3, act="x")),
        ("nhead: must divide d_model; found 3 heads for 8 features", lambda: Attention(8, 3)),
        ("width: must be at least 1; found 0", lambda: ResidualMLP(3, 0, 1)),
        ("dim: must be even and positive; found 3", lambda: TimeEmbedding(3)),
        ("d_model: must be even; found 3", lambda: PositionalEncoding(3)),
        ("kind: unknown kind; found 'rotary'; expected sinusoidal, learned", lambda: PositionalEncoding(4, "rotary")),
        ("max_len: must be at least 1", lambda: PositionalEncoding(4, "learned", 0)),
        ("log_std_min: must be below log_std_max; found 2 ≥ 1", lambda: GaussianHead(3, 1, False, 2, 1)),
        ("floor: must not be negative; found -1", lambda: Normalize("obs", -1)),
    ],
)
def test_what_a_block_refuses(message: str, make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_sequence_longer_than_the_table_is_refused_where_it_stands() -> None:
    model = sequential({"_type_": "positional_encoding", "d_model": 4, "kind": "learned", "max_len": 3})
    with pytest.raises(
        ConfigError, match=r"model\.sequential\.layers\[0\]: .*a sequence of 5 is longer than max_len=3"
    ):
        model.init(key(0), {"x": torch.zeros(2, 5, 4)})


def test_a_block_refuses_under_its_own_line() -> None:
    with pytest.raises(ConfigError, match=r"model\.sequential\.layers\[1\]\.dims: needs an input"):
        sequential({"_type_": "nn.Identity"}, {"_type_": "mlp", "dims": [4]})
