"""Torch's drawing functions, one by one, rewritten to draw from a key. `redirect` puts them in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, _VF
from torch.nn import functional as F

from . import random


class Call(NamedTuple):
    """What a replacement knows of the call it stands in for.

    Attributes:
        title: the function's name for messages.
        original: the function itself.
        key: gives the draw's key; raises where none may be drawn.
    """

    title: str
    original: Callable[..., Any]
    key: Callable[[], Tensor]


Draw = Callable[..., Any]
"""`(call, *args, **kwargs)`, the arguments being the original's."""
SELU_ALPHA = 1.7580993408473766
"""`scale * alpha` of SELU (Klambauer et al., 2017): minus the value that dropped units take in alpha dropout."""


def dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`: what survives is scaled by 1 / (1 - p)."""
    return _dropped(call, input, p, training, inplace, tuple(input.shape))


def channel_dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout2d` and `F.dropout3d`: whole channels; the first two dimensions are batch and channel."""
    return _dropped(call, input, p, training, inplace, _channels(input))


def dropout1d(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout1d`: as `channel_dropout`; two dimensions are channel and length."""
    shape = _channels(input) if input.dim() == 3 else (input.shape[0], 1)
    return _dropped(call, input, p, training, inplace, shape)


def alpha_dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`F.alpha_dropout`: mean and variance of a standard normal input are kept."""
    return _alpha_dropped(call, input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(
    call: Call, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.feature_alpha_dropout`: alpha dropout of whole channels."""
    return _alpha_dropped(call, input, p, training, inplace, _channels(input))


def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """`F.scaled_dot_product_attention`: the original where nothing is dropped, else its mathematics written out."""
    if not dropout_p:
        return call.original(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(-1)
    return _scale_kept(weights, random.bernoulli(call.key(), 1 - dropout_p, weights.shape), dropout_p) @ value


def rrelu(
    call: Call, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.rrelu`: a slope per negative element, uniform on [lower, upper)."""
    if not training:
        return call.original(input, lower, upper, False, inplace)
    slope = lower + (upper - lower) * random.uniform(call.key(), input.shape, input.dtype)
    return _deliver(input, torch.where(input > 0, input, input * slope), inplace)


def recurrent(position: int) -> Draw:
    """Fused RNNs, whose dropout between layers happens inside one kernel; `position` is that of `dropout`."""

    def draw(call: Call, *args: Any, **kwargs: Any) -> Any:
        packed = not isinstance(args[2], (list, tuple)) if call.title.endswith(("gru", "rnn_tanh", "rnn_relu")) else None
        del packed
        shift = position + (isinstance(args[3], (list, tuple)))
        dropout, training = args[shift], args[shift + 1]
        if dropout and training:
            call.key()
            raise RuntimeError(f"{call.title} drops units between its layers inside one kernel, which no key can govern")
        return call.original(*args, **kwargs)

    return draw


def _dropped(call: Call, input: Tensor, p: float, training: bool, inplace: bool, shape: Sequence[int]) -> Tensor:
    call.original(input, p, False, False)  # checks p and the number of dimensions, draws nothing
    if not training or p == 0 or input.numel() == 0:
        return input
    if p == 1:
        return _deliver(input, input * 0, inplace)
    return _deliver(input, _scale_kept(input, random.bernoulli(call.key(), 1 - p, shape), p), inplace)


def _scale_kept(input: Tensor, keep: Tensor, p: float) -> Tensor:
    return input * keep * (1 / (1 - p))


def _alpha_dropped(call: Call, input: Tensor, p: float, training: bool, inplace: bool, shape: Sequence[int]) -> Tensor:
    call.original(input, p, False, False)
    if not training or p == 0 or input.numel() == 0:
        return input
    if p == 1:
        return _deliver(input, input * 0, inplace)
    a = 1 / math.sqrt((SELU_ALPHA**2 * p + 1) * (1 - p))
    keep = random.bernoulli(call.key(), 1 - p, shape).to(input.dtype)
    return _deliver(input, input * (keep * a) + ((keep - 1) * (SELU_ALPHA * a) + SELU_ALPHA * a * p), inplace)


def _channels(input: Tensor) -> tuple[int, ...]:
    return (*input.shape[:2], *(1 for _ in input.shape[2:]))


def _deliver(target: Tensor, value: Tensor, inplace: bool) -> Tensor:
    return target.copy_(value) if inplace else value


def rand(call: Call, *size: Any, **options: Any) -> Tensor:
    """`torch.rand`."""
    return _made(call, random.uniform, size, **options)


def randn(call: Call, *size: Any, **options: Any) -> Tensor:
    """`torch.randn`."""
    return _made(call, random.normal, size, **options)


def rand_like(call: Call, input: Tensor, **options: Any) -> Tensor:
    """`torch.rand_like`."""
    return _made(call, random.uniform, (input.shape,), **_like(input, options))


def randn_like(call: Call, input: Tensor, **options: Any) -> Tensor:
    """`torch.randn_like`."""
    return _made(call, random.normal, (input.shape,), **_like(input, options))


def randint(call: Call, *bounds_and_size: Any, **options: Any) -> Tensor:
    """`torch.randint`: `(high, size)` or `(low, high, size)`."""
    *bounds, size = [*bounds_and_size, *(options.pop(name) for name in ("high", "size") if name in options)]
    low, high = (options.pop("low", 0), *bounds) if len(bounds) == 1 else bounds
    return _integers(call, low, high, size, **options)


def randint_like(call: Call, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    """`torch.randint_like`: `(input, high)` or `(input, low, high)`."""
    bounds = (*bounds, *(options.pop(name) for name in ("low", "high") if name in options))
    low, high = (0, *bounds) if len(bounds) == 1 else bounds
    return _integers(call, low, high, input.shape, **_like(input, options))


def randperm(call: Call, n: int, **options: Any) -> Tensor:
    """`torch.randperm`."""
    device, dtype = options.get("device"), options.get("dtype") or torch.int64
    return _finish(random.permutation(_placed(call.key(), device), n).to(dtype), options)


def bernoulli(call: Call, input: Tensor, p: float | Tensor | None = None, **options: Any) -> Tensor:
    """`torch.bernoulli`: `input` holds the probabilities, unless `p` is given."""
    chance = (input if p is None else p.to(input.device) if isinstance(p, Tensor) else p)
    chance = chance.detach() if isinstance(chance, Tensor) else chance
    return _finish(random.bernoulli(_placed(call.key(), input.device), chance, input.shape).to(input.dtype), options)


def normal(call: Call, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    """`torch.normal`: mean and std are tensors, or numbers with a `size`."""
    given = [x.detach() for x in (mean, std) if isinstance(x, Tensor)]
    if not given:
        return randn(call, size, **options) * std + mean
    shape = torch.broadcast_shapes(*(x.shape for x in given))
    dtype, device = torch.result_type(given[0], given[-1]), given[0].device
    mean, std = (x.detach() if isinstance(x, Tensor) else x for x in (mean, std))
    return _finish(random.normal(_placed(call.key(), device), shape, dtype) * std + mean, options)


def multinomial(
    call: Call, input: Tensor, num_samples: int, replacement: bool = False, **options: Any
) -> Tensor:
    """`torch.multinomial` by a race of exponentials: the first to arrive, or the first `num_samples`, win."""
    shape = (num_samples, *input.shape) if replacement else tuple(input.shape)
    race = input.detach() / random.exponential(_placed(call.key(), input.device), shape, input.dtype)
    if replacement:
        return _finish(race.argmax(-1).movedim(0, -1), options)
    return _finish(race.topk(num_samples).indices, options)


def uniform_(call: Call, self: Tensor, from_: float = 0.0, to: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.uniform_`."""
    low = options.get("from", from_)
    return _fill(call, self, lambda key: low + (to - low) * random.uniform(key, self.shape, self.dtype))


def normal_(call: Call, self: Tensor, mean: float = 0.0, std: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.normal_`."""
    del options
    return _fill(call, self, lambda key: mean + std * random.normal(key, self.shape, self.dtype))


def exponential_(call: Call, self: Tensor, lambd: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.exponential_`."""
    del options
    return _fill(call, self, lambda key: random.exponential(key, self.shape, self.dtype) / lambd)


def bernoulli_(call: Call, self: Tensor, p: float | Tensor = 0.5, **options: Any) -> Tensor:
    """`Tensor.bernoulli_`."""
    del options
    return _fill(call, self, lambda key: random.bernoulli(key, p, self.shape).to(self.dtype))


def unsupported(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A draw that has no keyed form."""
    del args, kwargs
    call.key()
    raise RuntimeError(f"{call.title} has no form that draws from a key; draw with torch.rand or torch.randn instead")


def _made(
    call: Call, draw: Callable[..., Tensor], size: Sequence[Any], dtype: torch.dtype | None = None,
    device: torch.device | str | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    (shape,) = size if len(size) == 1 and not isinstance(size[0], int) else (size or (options.get("size", ()),))[:1] if not size else (size,)
    return _finish(draw(_placed(call.key(), device), tuple(shape), dtype or torch.get_default_dtype()), options)


def _integers(
    call: Call, low: int, high: int, size: Sequence[int], dtype: torch.dtype | None = None,
    device: torch.device | str | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    return _finish(random.randint(_placed(call.key(), device), size, low, high).to(dtype or torch.int64), options)


def _fill(call: Call, self: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    return self.copy_(draw(_placed(call.key(), self.device)).detach())


def _placed(key: Tensor, device: torch.device | str | None) -> Tensor:
    """The key where torch would put the draw: on the device asked for, else on the default one."""
    return key.to(torch.get_default_device() if device is None else device)


def _finish(value: Tensor, options: dict[str, Any]) -> Tensor:
    if options.get("out") is not None:
        return options["out"].copy_(value)
    return value.requires_grad_() if options.get("requires_grad") else value


def _like(input: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    return {"dtype": input.dtype, "device": input.device} | given


def title(owner: Any, name: str) -> str:
    """`torch.rand`, `F.dropout`, `Tensor.uniform_`: a function as users write it."""
    return f"{'F' if owner is F else owner.__name__.rpartition('.')[2]}.{name}"


def table() -> Iterator[tuple[Any, str, Draw]]:
    """Every function that is replaced: where it lives, its name, its replacement."""
    yield from ((F, name, draw) for name, draw in FUNCTIONAL.items())
    yield from ((torch, name, draw) for name, draw in TORCH.items())
    yield from ((Tensor, name, draw) for name, draw in METHODS.items())
    yield from ((_VF, name, recurrent(5)) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"))


FUNCTIONAL = {
    "dropout": dropout,
    "dropout1d": dropout1d,
    "dropout2d": channel_dropout,
    "dropout3d": channel_dropout,
    "alpha_dropout": alpha_dropout,
    "feature_alpha_dropout": feature_alpha_dropout,
    "scaled_dot_product_attention": attention,
    "rrelu": rrelu,
}
TORCH = {
    "rand": rand,
    "randn": randn,
    "rand_like": rand_like,
    "randn_like": randn_like,
    "randint": randint,
    "randint_like": randint_like,
    "randperm": randperm,
    "bernoulli": bernoulli,
    "normal": normal,
    "multinomial": multinomial,
    "poisson": unsupported,
    "binomial": unsupported,
}
METHODS = {
    "uniform_": uniform_,
    "normal_": normal_,
    "exponential_": exponential_,
    "bernoulli_": bernoulli_,
    "bernoulli": bernoulli,
    "multinomial": multinomial,
    "geometric_": unsupported,
    "cauchy_": unsupported,
    "log_normal_": unsupported,
    "random_": unsupported,
}
