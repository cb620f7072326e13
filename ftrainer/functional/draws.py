"""Torch's dropping functions, one by one, rewritten to draw from a key. `redirect` puts them in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import random


class DrawError(RuntimeError):
    """Torch code wanted a random number that no key governs."""


class Call(NamedTuple):
    """What a replacement knows of the call that it stands in for.

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
"""`scale * alpha` of SELU (Klambauer et al., 2017): minus what a dropped unit becomes, before scaling."""


def dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`: what survives is divided by 1 - p."""
    return _dropped(call, input, p, training, inplace, tuple(input.shape))


def channel_dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout2d` and `F.dropout3d`: whole channels; the first two dimensions are batch and channel."""
    return _dropped(call, input, p, training, inplace, _channels(input))


def dropout1d(call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout1d`: as `channel_dropout`, but two dimensions are channel and length."""
    return _dropped(call, input, p, training, inplace, (*input.shape[:-1], 1))


def alpha_dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`F.alpha_dropout`: keeps the mean and variance of a standard normal input."""
    return _alpha_dropped(call, input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(
    call: Call, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.feature_alpha_dropout`: alpha dropout of whole channels."""
    return _alpha_dropped(call, input, p, training, inplace, _channels(input))


def positional(draw: Draw, inplace: bool = False) -> Draw:
    """The same for `torch.dropout` and kin, which are called `(input, p, train)`."""

    def drawn(call: Call, input: Tensor, p: float, train: bool) -> Tensor:
        plain = call._replace(original=lambda input, p, training, inplace: call.original(input, p, training))
        return draw(plain, input, p, train, inplace)

    return drawn


def native_dropout(call: Call, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """`torch.native_dropout`: the result and the mask."""
    if train is False or p == 0 or p == 1:
        return call.original(input, p, train)
    keep = random.bernoulli(call.key(), 1 - p, input.shape)
    return _scaled(input, keep, p), keep


def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """`F.scaled_dot_product_attention`: the original where nothing is dropped, else its mathematics written out.

    Raises:
        ValueError: `attn_mask` and `is_causal` are both given.
    """
    if not dropout_p:
        return call.original(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    if is_causal and attn_mask is not None:
        raise ValueError(f"{call.title} takes attn_mask or is_causal, not both")
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = torch.where(attn_mask, scores, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = _softmax(scores) if attn_mask is not None else scores.softmax(-1)
    return _scaled(weights, random.bernoulli(call.key(), 1 - dropout_p, weights.shape), dropout_p) @ value


def _softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, as torch's attention has it: zeros where all is masked, instead of NaN."""
    nowhere = (scores == -math.inf).all(-1, keepdim=True)
    return torch.where(nowhere, 0.0, torch.where(nowhere, 0.0, scores).softmax(-1))


def rrelu(
    call: Call, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.rrelu`: a slope for each negative element, uniform on [lower, upper)."""
    if not training:
        return call.original(input, lower, upper, False, inplace)
    slope = lower + (upper - lower) * random.uniform(call.key(), input.shape, input.dtype)
    return _deliver(input, torch.where(input > 0, input, input * slope), inplace)


def gumbel_softmax(
    call: Call, logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """`F.gumbel_softmax` (Jang et al., 2017); `hard` gives a one-hot with the soft gradient."""
    del eps
    noise = -random.exponential(call.key(), logits.shape, logits.dtype).log()
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    return torch.zeros_like(soft).scatter(dim, soft.argmax(dim, keepdim=True), 1.0) - soft.detach() + soft


def recurrent(call: Call, *args: Any) -> Any:
    """Fused RNNs, which drop units between layers inside one kernel: only without that can they be called.

    Raises:
        DrawError: units would be dropped.
    """
    is_packed = not args[1].is_floating_point() if isinstance(args[1], Tensor) else False
    n_layers, p, training = args[4:7] if not is_packed else args[5:8]
    if p and training and n_layers > 1:
        call.key()
        name = RECURRENT[call.title.rpartition(".")[2]]
        raise DrawError(
            f"{name}(num_layers={n_layers}, dropout={p}) drops units inside one kernel, where no key reaches; set "
            f"dropout=0, or stack {name} of one layer with nn.Dropout between"
        )
    return call.original(*args)


RECURRENT: Mapping[str, str] = MappingProxyType(
    {"lstm": "nn.LSTM", "gru": "nn.GRU", "rnn_tanh": "nn.RNN", "rnn_relu": "nn.RNN"}
)


def _dropped(call: Call, input: Tensor, p: float, training: bool, inplace: bool, shape: Sequence[int]) -> Tensor:
    call.original(input, p, False, False)  # checks p and the number of dimensions, and draws nothing
    if not training or p == 0 or input.numel() == 0:
        return input
    if p == 1:
        return _deliver(input, input * 0, inplace)
    return _deliver(input, _scaled(input, random.bernoulli(call.key(), 1 - p, shape), p), inplace)


def _scaled(input: Tensor, keep: Tensor, p: float) -> Tensor:
    # Settled, so that the way back reads the mask instead of drawing it again: 4 to 8% of a step at width 64.
    return input * random.settled(keep.to(input.dtype) * (1 / (1 - p)))


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
