"""Dropout as a number that members of one stack of runs may differ in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ftrainer.functional.jit import jit
from ftrainer.functional.random import key, split
from ftrainer.functional.replicate import StackError, swept
from ftrainer.functional.state import evolve_at
from ftrainer.model import Model
from registry import ConfigError, component
from tests.models import sequential, typed

FIRST, SECOND = "model.sequential.layers.0.dropout", "model.sequential.layers.1.dropout"
X = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@component
class Holder:
    """A learner that holds a model and no more."""

    model: Any


def network(first: float = 0.5, second: float = 0.2, **encoder: Any) -> Model:
    """A model in which four dropout layers have two probabilities."""
    attention = {"_type_": "transformer_encoder", "d_model": 3, "nhead": 1, "num_layers": 1, "dim_feedforward": 6}
    return sequential(
        {"_type_": "mlp", "dims": [None, 32, 3], "dropout": first}, {**attention, "dropout": second, **encoder}
    )


def started() -> dict[str, Tensor]:
    return {name: p.double() for name, p in network().init(key(0), {"x": X.float()})[0].items()}


def test_a_member_draws_what_its_solo_run_draws() -> None:
    params, keys = started(), split(key(1), 3)
    values = torch.tensor([[0.1, 0.3], [0.5, 0.2], [0.9, 0.05]], dtype=torch.float64)

    def run(pair: Any, k: Tensor) -> Tensor:
        holder = evolve_at(evolve_at(Holder(model=network()), FIRST, pair[0]), SECOND, pair[1])
        return holder.model.apply(params, {}, {"x": X}, k, train=True)[0]

    together = jit(torch.vmap(run), backend="trace")(values, keys)
    for index, (one, two) in enumerate(values.tolist()):
        solo = network(one, two).apply(params, {}, {"x": X}, keys[index], train=True)[0]
        torch.testing.assert_close(together[index], solo, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(run((one, two), keys[index]), solo, rtol=1e-12, atol=1e-12)
        evaluated = evolve_at(Holder(model=network()), FIRST, one).model.apply(params, {}, {"x": X})[0]
        torch.testing.assert_close(evaluated, network().apply(params, {}, {"x": X})[0])


def test_models_that_differ_in_dropout_alone_can_be_stacked() -> None:
    found = swept([Holder(model=network(0.1)), Holder(model=network(0.3))])
    assert {path: values.tolist() for path, values in found.items()} == {FIRST: [0.1, 0.3]}
    unset = swept([Holder(model=network()), evolve_at(Holder(model=network()), SECOND, 0.7)])
    assert {path: values.tolist() for path, values in unset.items()} == {SECOND: [0.2, 0.7]}
    for other in (network(0.0), network(dim_feedforward=8)):
        with pytest.raises(StackError, match="members may differ in traceable numbers only"):
            swept([Holder(model=network()), Holder(model=other)])


def test_a_default_that_drops_can_be_swept_though_it_is_not_written() -> None:
    model = sequential({"_type_": "transformer_encoder", "d_model": 4, "nhead": 1, "num_layers": 1})
    assert model.numbers() == {"sequential.layers.0.dropout": 0.1}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.sequential.layers.0.dims", "of a model only the dropout of a block can be swept"),
        ("model.sequential.layers.2.dropout", r"where it is not 0; did you mean sequential\.layers\."),
    ],
)
def test_nothing_else_of_a_model_can_be_swept(path: str, message: str) -> None:
    with pytest.raises(KeyError, match=message):
        evolve_at(Holder(model=network()), path, 0.1)


def test_torchs_own_dropout_is_structural() -> None:
    assert sequential({"_type_": "nn.Dropout", "p": 0.3}).numbers() == {}
    assert typed(torch.nn.Identity).numbers() == {}


def test_a_swept_number_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be between 0 and 1; found 1\.5"):
        evolve_at(Holder(model=network()), FIRST, 1.5)


def test_a_dropout_that_is_no_probability_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.sequential\.layers\[0\]\.dropout: must be between 0 and 1; found 1\.5"
    ):
        network(1.5)
