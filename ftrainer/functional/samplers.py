"""Torch's sampling functions, one by one, rewritten to draw from a key. `redirect` puts them in place.

Numbers, dtypes and shapes that torch refuses are refused here too, by a RuntimeError. What only a tensor's values would
tell is not noticed, since a step asks no tensor for its value: under a negative entry of a tensor `std` a normal has
the deviation `|std|`, probabilities in a tensor count as the nearer of 0 and 1 where they lie outside, and to
`multinomial` a negative weight is less than none: it is drawn after all others, and from a row without any positive
weight all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import random
from .draws import Call, DrawError

Options = dict[str, Any]
"""The keyword arguments that torch's factories share: dtype, device, requires_grad, out and kin."""


def rand(call: Call, *size: Any, **options: Any) -> Tensor:
    """`torch.rand`."""
    return _made(call, random.uniform, _size(size, options), options)


def randn(call: Call, *size: Any, **options: Any) -> Tensor:
    """`torch.randn`."""
    return _made(call, random.normal, _size(size, options), options)


def rand_like(call: Call, input: Tensor, **options: Any) -> Tensor:
    """`torch.rand_like`."""
    return _made(call, random.uniform, input.shape, _like(input, options))


def randn_like(call: Call, input: Tensor, **options: Any) -> Tensor:
    """`torch.randn_like`."""
    return _made(call, random.normal, input.shape, _like(input, options))


def randint(call: Call, *bounds_and_size: Any, **options: Any) -> Tensor:
    """`torch.randint`: `(high, size)` or `(low, high, size)`."""
    bounds = [*bounds_and_size, *(options.pop(name) for name in ("low", "high", "size") if name in options)]
    *bounds, size = bounds
    return _integers(call, bounds, size, options)


def randint_like(call: Call, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    """`torch.randint_like`: `(input, high)` or `(input, low, high)`."""
    given = [*bounds, *(options.pop(name) for name in ("low", "high") if name in options)]
    return _integers(call, given, input.shape, _like(input, options))


def randperm(call: Call, n: int, **options: Any) -> Tensor:
    """`torch.randperm`."""
    drawn = random.permutation(_key(call, options.get("device")), n)
    return _finish(drawn.to(options.get("dtype") or torch.int64), options)


def bernoulli(call: Call, input: Tensor, p: float | Tensor | None = None, **options: Any) -> Tensor:
    """`torch.bernoulli`: `input` holds the probabilities, unless `p` is given."""
    _floating(call, input)
    _expect(call, "p in [0, 1]", lambda p: 0 <= p <= 1, p=p)
    chance = _detached(input if p is None else p)
    return _finish(random.bernoulli(_key(call, input.device), chance, input.shape).to(input.dtype), options)


def normal(call: Call, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    """`torch.normal`: mean and std are tensors, or numbers with a `size`."""
    _expect(call, "std >= 0", lambda std: std >= 0, std=std)
    given = [x for x in (mean, std) if isinstance(x, Tensor)]
    if not given:
        return randn(call, size, **options) * std + mean
    shape = torch.broadcast_shapes(*(x.shape for x in given))
    dtype = torch.result_type(given[0], given[-1])
    noise = random.normal(_key(call, given[0].device), shape, dtype)
    return _finish(noise * _detached(std) + _detached(mean), options)


def multinomial(call: Call, input: Tensor, num_samples: int, replacement: bool = False, **options: Any) -> Tensor:
    """`torch.multinomial` as a race: everyone arrives after an exponential time at their own rate, the first ones win.

    With replacement each sample is a race of its own, so memory grows with `num_samples` times the categories.
    """
    _floating(call, input)
    _expect(call, "weights of 1 or 2 dimensions", lambda dimensions: dimensions in (1, 2), dimensions=input.dim())
    _expect(call, "num_samples > 0", lambda n: n > 0, num_samples=num_samples)
    limit = num_samples if replacement else input.shape[-1]
    _expect(call, f"at most {limit} samples without replacement", lambda n: n <= limit, num_samples=num_samples)
    shape = (num_samples, *input.shape) if replacement else tuple(input.shape)
    speed = input.detach() / random.exponential(_key(call, input.device), shape, input.dtype)
    if replacement:
        return _finish(speed.argmax(-1).movedim(0, -1), options)
    return _finish(speed.topk(num_samples).indices, options)


def uniform_(call: Call, self: Tensor, *bounds: float, **options: Any) -> Tensor:
    """`Tensor.uniform_`: `(from=0, to=1)`."""
    low, high = _given(bounds, options, {"from": 0.0, "to": 1.0})
    _floating(call, self)
    _expect(call, "from <= to", lambda low, high: low <= high, **{"from": low, "to": high})
    return _fill(call, self, lambda key: low + (high - low) * _drawn(random.uniform, key, self.shape, self.dtype))


def normal_(call: Call, self: Tensor, mean: float = 0.0, std: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.normal_`."""
    del options
    _floating(call, self)
    _expect(call, "std >= 0", lambda std: std >= 0, std=std)
    return _fill(call, self, lambda key: mean + std * _drawn(random.normal, key, self.shape, self.dtype))


def log_normal_(call: Call, self: Tensor, mean: float = 1.0, std: float = 2.0, **options: Any) -> Tensor:
    """`Tensor.log_normal_`."""
    del options
    _floating(call, self)
    _expect(call, "std > 0", lambda std: std > 0, std=std)
    return _fill(call, self, lambda key: (mean + std * random.normal(key, self.shape, self.dtype)).exp())


def exponential_(call: Call, self: Tensor, lambd: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.exponential_`."""
    del options
    _floating(call, self)
    _expect(call, "lambd > 0", lambda lambd: lambd > 0, lambd=lambd)
    return _fill(call, self, lambda key: random.exponential(key, self.shape, self.dtype) / lambd)


def geometric_(call: Call, self: Tensor, p: float, **options: Any) -> Tensor:
    """`Tensor.geometric_`: the number of trials up to the first success, at least 1."""
    del options
    _expect(call, "p in (0, 1)", lambda p: 0 < p < 1, p=p)
    rate = -math.log1p(-p)
    return _fill(call, self, lambda key: (random.exponential(key, self.shape) / rate).ceil().clamp(min=1))


def cauchy_(call: Call, self: Tensor, median: float = 0.0, sigma: float = 1.0, **options: Any) -> Tensor:
    """`Tensor.cauchy_`."""
    del options
    _floating(call, self)
    _expect(call, "sigma > 0", lambda sigma: sigma > 0, sigma=sigma)
    return _fill(
        call, self, lambda key: median + sigma * ((random.uniform(key, self.shape, self.dtype) - 0.5) * math.pi).tan()
    )


def bernoulli_(call: Call, self: Tensor, p: float | Tensor = 0.5, **options: Any) -> Tensor:
    """`Tensor.bernoulli_`."""
    del options
    _expect(call, "p in [0, 1]", lambda p: 0 <= p <= 1, p=p)
    return _fill(call, self, lambda key: random.bernoulli(key, _detached(p), self.shape))


def random_(call: Call, self: Tensor, *bounds: int, **options: Any) -> Tensor:
    """`Tensor.random_`: `()`, `(to)` or `(from, to)`; all that the dtype counts exactly by default."""
    given = [*bounds, *(options[name] for name in ("from", "to") if name in options)]
    low, high = ([0, _span(self.dtype)] if not given else [0, *given])[-2:]
    return _fill(call, self, lambda key: random.randint(key, self.shape, low, high))


def unsupported(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A draw that has no keyed form.

    Raises:
        DrawError: always.
    """
    del args, kwargs
    call.key()
    raise DrawError(f"{call.title} cannot draw from a key; build the draw from torch.rand or torch.randn, which can")


def _expect(call: Call, wanted: str, test: Callable[..., bool], **values: Any) -> None:
    """Refuse numbers as torch does; a tensor, whose value is not asked for, passes."""
    if all(isinstance(value, (int, float)) for value in values.values()) and not test(*values.values()):
        found = ", ".join(f"{name}={value:g}" for name, value in values.items())
        raise RuntimeError(f"{call.title} expects {wanted}, but found {found}")


def _floating(call: Call, target: Tensor) -> None:
    """Refuse integers, in which torch does not draw from a continuum either."""
    if not (target.is_floating_point() or target.is_complex()):
        raise RuntimeError(f"{call.title} expects a floating-point tensor, but found {target.dtype}")


def _made(call: Call, draw: Callable[..., Tensor], shape: Sequence[int], options: Options) -> Tensor:
    dtype = options.get("dtype") or torch.get_default_dtype()
    return _finish(_drawn(draw, _key(call, options.get("device")), tuple(shape), dtype), options)


def _drawn(draw: Callable[..., Tensor], key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return draw(key, shape, dtype)
    pair = torch.view_as_complex(draw(key, (*shape, 2), dtype.to_real()))
    return pair * math.sqrt(0.5) if draw is random.normal else pair


def _integers(call: Call, bounds: Sequence[int], size: Sequence[int], options: Options) -> Tensor:
    low, high = [0, *bounds][-2:]
    drawn = random.randint(_key(call, options.get("device")), size, low, high)
    return _finish(drawn.to(options.get("dtype") or torch.int64), options)


def _fill(call: Call, self: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    return self.copy_(draw(_key(call, self.device)))


def _key(call: Call, device: torch.device | str | None) -> Tensor:
    """The call's key where torch would put the draw: on the device asked for, else on the default one."""
    return call.key().to(torch.empty(0).device if device is None else device)


def _finish(value: Tensor, options: Options) -> Tensor:
    if options.get("out") is not None:
        return options["out"].copy_(value)
    return value.requires_grad_() if options.get("requires_grad") else value


def _like(input: Tensor, options: Options) -> Options:
    given = {name: value for name, value in options.items() if value is not None}
    return {"dtype": input.dtype, "device": input.device} | given


def _size(size: tuple[Any, ...], options: Options) -> tuple[int, ...]:
    """`(2, 3)`, `((2, 3),)` or `size=(2, 3)`."""
    given = size or (options.get("size", ()),)
    return tuple(given[0]) if len(given) == 1 and not isinstance(given[0], (int, torch.SymInt)) else tuple(given)


def _given(values: tuple[float, ...], options: Options, defaults: dict[str, float]) -> list[float]:
    """Arguments by place or by name: `from` cannot be a parameter's name in Python."""
    rest = list(defaults.items())[len(values) :]
    return [*values, *(options.get(name, default) for name, default in rest)]


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _span(dtype: torch.dtype) -> int:
    if dtype == torch.bool:
        return 2
    if dtype.is_floating_point:
        return int(2 / torch.finfo(dtype).eps) + 1
    return min(torch.iinfo(dtype).max + 1, 2**63 - 1)
