"""Augmentations: each example has randomness of its own, and the step's key decides it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from ftrainer import build, evaluate, fit
from ftrainer.builtins import builtin_registry
from ftrainer.components.data.transforms import GaussianNoise, RandomFlip, RandomShift
from ftrainer.functional import augment, random
from ftrainer.functional.jit import jit
from registry import ConfigError, instantiate

IMAGES = torch.arange(1.0, 2 * 3 * 5 * 7 + 1).reshape(2, 3, 5, 7)
ALL = (RandomShift(pixels=2, fill="zero"), RandomFlip(), GaussianNoise(std=0.1))


def test_each_example_and_each_transform_draws_its_own() -> None:
    noise = GaussianNoise(std=1.0)
    drawn = augment.apply([noise, noise], {"x": torch.zeros(4, 1000)}, random.key(0))["x"]
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 0.2
    assert abs(drawn.var() - 2) < 0.2


def test_an_example_depends_on_its_place_alone() -> None:
    batch = {"x": IMAGES.repeat(3, 1, 1, 1)}
    out = augment.apply(ALL, batch, random.key(0))
    shorter = augment.apply(ALL, {"x": batch["x"][:4]}, random.key(0))
    assert torch.equal(out["x"][:4], shorter["x"])
    assert torch.equal(augment.one(ALL, {"x": batch["x"][1]}, random.split(random.key(0), 6)[1])["x"], out["x"][1])


def test_no_transform_is_the_batch_itself() -> None:
    batch = {"x": IMAGES}
    assert augment.apply((), batch, random.key(0)) is batch


def test_draws_through_torch_come_from_the_key() -> None:
    def noisy(example: Any, key: Tensor) -> Any:
        return {"x": example["x"] + torch.rand_like(example["x"]) + 0 * random.uniform(key)}

    first, again, other = (augment.apply([noisy], {"x": IMAGES}, random.key(seed))["x"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0] - IMAGES[0], first[1] - IMAGES[1])


def test_trace_and_vmap_equal_eager() -> None:
    def transformed(key: Tensor) -> Tensor:
        return augment.apply(ALL, {"x": IMAGES}, key)["x"]

    keys = random.split(random.key(3), 2)
    assert torch.equal(jit(transformed, backend="trace")(keys[0]), transformed(keys[0]))
    assert torch.equal(vmap(transformed)(keys)[1], transformed(keys[1]))


def test_other_fields_pass_and_the_batch_is_unchanged() -> None:
    batch = {"obs": {"pixels": IMAGES.clone()}, "y": torch.arange(2), "sample_mask": torch.tensor([True, False])}
    out = augment.apply([RandomFlip(p=1.0, field="obs.pixels")], batch, random.key(0))
    assert torch.equal(out["obs"]["pixels"], IMAGES.flip(-1))
    assert torch.equal(out["y"], batch["y"])
    assert torch.equal(out["sample_mask"], batch["sample_mask"])
    assert torch.equal(batch["obs"]["pixels"], IMAGES)


def test_flip_reverses_one_dimension_half_the_time() -> None:
    out = augment.apply([RandomFlip(dim=-2)], {"x": IMAGES[:1].repeat(1000, 1, 1, 1)}, random.key(0))["x"]
    flipped = (out == IMAGES[0].flip(-2)).flatten(1).all(1)
    assert torch.equal(flipped, ~(out == IMAGES[0]).flatten(1).all(1))
    assert 430 < flipped.sum() < 570


@pytest.mark.parametrize("fill", ["edge", "zero"])
def test_shift_moves_every_way_and_fills_the_border(fill: str) -> None:
    """200 shifts of up to one pixel: all nine appear, each as padding and cropping gives it."""
    mode = {"edge": "replicate", "zero": "constant"}[fill]
    padded = torch.nn.functional.pad(IMAGES[:1], (1, 1, 1, 1), mode=mode)
    expected = [padded[0, :, i : i + 5, j : j + 7] for i in range(3) for j in range(3)]
    out = augment.apply([RandomShift(pixels=1, fill=fill)], {"x": IMAGES[:1].repeat(200, 1, 1, 1)}, random.key(0))["x"]
    places = [[torch.equal(image, crop) for crop in expected].index(True) for image in out]
    assert set(places) == set(range(9))


def test_shift_keeps_integers() -> None:
    out = augment.apply([RandomShift(pixels=1)], {"x": IMAGES.to(torch.uint8)}, random.key(0))["x"]
    assert out.dtype == torch.uint8


def test_noise_refuses_integers() -> None:
    with pytest.raises(TypeError, match=r"noise needs a floating point field; 'x' holds torch\.uint8"):
        augment.apply([GaussianNoise(std=0.1)], {"x": IMAGES.to(torch.uint8)}, random.key(0))


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(KeyError, match="no field 'z' to transform among x, y"):
        augment.apply([RandomFlip(field="z")], {"x": IMAGES, "y": IMAGES}, random.key(0))


def test_leaves_must_share_their_leading_dimension() -> None:
    with pytest.raises(ValueError, match=r"a batch has one leading dimension to transform along; found \[2, 3\]"):
        augment.apply(ALL, {"x": IMAGES, "y": torch.zeros(3)}, random.key(0))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_type_": "transform.gaussian_noise", "std": -1.0}, r"std: out of range; found -1\.0"),
        ({"_type_": "transform.random_flip", "p": 1.5}, r"p: out of range; found 1\.5"),
        ({"_type_": "transform.random_shift", "pixels": 0}, "pixels: out of range; found 0"),
        ({"_type_": "transform.random_shift", "fill": "grey"}, "fill: unknown choice; found 'grey'"),
    ],
)
def test_fields_are_checked(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate(builtin_registry(), spec)


def run(*transforms: dict[str, Any]) -> tuple[Any, Any]:
    """A small run whose data names these transforms."""
    return build(
        {
            "run": {"name": "test", "compile": "trace"},
            "data": {"_type_": "data.random_regression", "batch_size": 8, "steps_per_epoch": 5,
                     "val_steps_per_epoch": 2, "x_shape": [3], "y_shape": [2], "transforms": list(transforms)},
            "model": {"sequential": {"layers": [{"_type_": "nn.Linear", "in_features": 3, "out_features": 2}]}},
            "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
            "optimizer": {"_type_": "optim.sgd", "lr": 0.0},
            "trainer": {"_type_": "trainer.default", "max_steps": 2},
            "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        }
    )  # fmt: skip


def test_the_step_trains_on_transformed_examples_and_evaluation_on_plain_ones() -> None:
    """The gradient of a linear model is zero on inputs of zero noise only; the loss tells what it was given."""
    noise = {"_type_": "transform.gaussian_noise", "std": 3.0}
    (plain, data), (noisy, _) = run(), run(noise)
    batch = next(iter(data.batches("train", 0)))
    seen = noisy.program.learner.update(noisy, batch)[1]["loss"]
    assert seen > 2 * plain.program.learner.update(plain, batch)[1]["loss"]
    assert torch.equal(seen, noisy.program.learner.update(noisy, batch)[1]["loss"])
    assert seen != noisy.program.learner.update(attrs.evolve(noisy, tick=noisy.tick + 1), batch)[1]["loss"]
    assert evaluate(noisy, data) == evaluate(plain, data)
    assert fit(noisy, data).step == 2


def test_transforms_enter_the_compiled_steps_cache_key() -> None:
    flips = [run({"_type_": "transform.random_flip", "p": p})[0].program.step_part() for p in (0.5, 0.5, 0.1)]
    assert flips[0] == flips[1] != flips[2]


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.transforms\[0\]"):
        run({"_type_": "nn.Linear", "in_features": 1, "out_features": 1})
