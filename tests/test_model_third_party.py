"""Models of a library that knows nothing of this one, trained through the bridge and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftrainer.deps import dynamo
from ftrainer.functional.jit import jit
from ftrainer.functional.random import key
from ftrainer.model import Model, build_model, from_module
from tests.models import REGISTRY

transformers = pytest.importorskip("transformers", reason="the extra `test` installs it")
STEPS, LR = 20, 0.05


def causal_language_model() -> nn.Module:
    """A GPT-2 of two small layers, its head tied to its embedding."""
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=16, use_cache=False, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    """A Llama of two small layers."""
    config = transformers.LlamaConfig(
        num_hidden_layers=2, hidden_size=16, intermediate_size=32, num_attention_heads=2, vocab_size=50,
        max_position_embeddings=16, use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def vision_transformer() -> nn.Module:
    """A ViT of two small layers."""
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def tokens(step: int) -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(step))
    return {"input_ids": ids[:, :-1]}, ids[:, 1:]


def images(step: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
    return {"pixel_values": pixels}, torch.randint(0, 3, (4,), generator=generator)


def loss_of(outputs: Any, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs["logits"].flatten(0, -2), target.flatten())


def by_the_bridge(model: Model, batches: Any, backend: str) -> tuple[dict[str, Tensor], list[float]]:
    """Weights and losses after some steps of plain gradient descent."""

    def step(params: Any, buffers: Any, inputs: Any, target: Tensor) -> Any:
        def loss(p: Any) -> Any:
            outputs, new = model.apply(p, buffers, inputs, train=True)
            return loss_of(outputs, target), new

        grads, (value, new) = torch.func.grad_and_value(loss, has_aux=True)(params)
        return {name: p - LR * grads[name] for name, p in params.items()}, new, value

    params, buffers = model.init(key(0), batches(0)[0])
    run, losses = jit(step, backend=backend), []
    for index in range(STEPS):
        params, buffers, value = run(params, buffers, *batches(index))
        losses.append(value.item())
    return params, losses


def by_hand(module: nn.Module, batches: Any) -> list[float]:
    """The same by autograd and torch's optimizer."""
    module.train()
    optimizer, losses = torch.optim.SGD(module.parameters(), lr=LR), []
    for index in range(STEPS):
        inputs, target = batches(index)
        value = loss_of(module(**inputs), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("backend", ["eager", "trace"])
@pytest.mark.parametrize(
    ("make", "batches", "inputs"),
    [
        (causal_language_model, tokens, "input_ids"),
        (llama, tokens, "input_ids"),
        (vision_transformer, images, "pixel_values"),
    ],
)
def test_twenty_steps_are_those_of_a_hand_written_loop(make: Any, batches: Any, inputs: str, backend: str) -> None:
    torch.manual_seed(0)
    module = make().double()
    model = from_module(module, inputs=(inputs,))
    params, losses = by_the_bridge(model, batches, backend)
    expected = by_hand(module, batches)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-12, atol=1e-12)
    trained = dict(module.named_parameters())
    assert params.keys() == trained.keys()
    for name, tensor in params.items():
        torch.testing.assert_close(tensor, trained[name].detach(), rtol=1e-10, atol=1e-12)
    assert losses[-1] != losses[0]


@pytest.mark.parametrize("make", [causal_language_model, llama])
def test_dynamo_captures_them_whole(make: Any) -> None:
    torch.manual_seed(0)
    model = from_module(make().double(), inputs=("input_ids",))
    batch, _ = tokens(0)
    params, buffers = model.init(key(0), batch)
    with dynamo.asked_for() as refusals:
        captured, _ = model.apply(params, buffers, batch, train=True)
    assert refusals == []
    assert torch.equal(captured["logits"], model.apply(params, buffers, batch, train=True)[0]["logits"])


def test_a_registered_factory_is_a_model_from_yaml_and_comes_out_as_its_own_class() -> None:
    registry = REGISTRY.register("zoo.gpt2", causal_language_model)
    section = {"_type_": "model.torch", "factory": {"_type_": "zoo.gpt2"}, "inputs": ["input_ids"]}
    model = build_model(registry, section)
    inputs, _ = tokens(0)
    params, buffers = model.init(key(0), inputs)
    assert not any("lm_head" in name for name in params)
    module = model.to_module(params, buffers)
    assert isinstance(module, transformers.GPT2LMHeadModel)
    assert module.lm_head.weight is module.transformer.wte.weight
    outputs, _ = model.apply(params, buffers, inputs)
    assert type(outputs) is dict
    torch.testing.assert_close(outputs["logits"], module(**inputs).logits)
