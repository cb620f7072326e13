"""Randomness as a value: counter-based draws from a key, in int64 tensor arithmetic.

Generator: the n-th word is SplitMix64's finaliser (Steele, Lea, Flood, 2014, "Fast Splittable Pseudorandom Number
Generators"; constants by Stafford) of n and the key, which enters twice, so that no two keys walk one sequence at an
offset. A child key is such a word too, at a counter where no draw ever stands.

Everything is plain arithmetic on int64 tensors, which wraps as two's complement, so the same key gives the same bits
eager, traced, compiled, as a member of a `vmap`, on CPU and on CUDA. Only `normal` and `exponential`, which take
logarithms, may differ in the last places between backends.

Two habits of compilers shape the formulas. Inductor folds sums and products of `arange` and constants into index
expressions, and C++ may assume that no signed product overflows: both gave wrong words where a product's operands were
known, so the key, which no compiler knows, comes in before the first product. And Inductor writes an expression out
once for each reader, which a chain of shift-and-xor doubles at each link: so there are three links where `squares`
(Widynski, 2020) has eight, and `settled` ends the copying at each key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]
Word = Any
"""An int64 tensor or NumPy array, or a Python integer that `_wrap` keeps in the range of one."""


def _signed(word: int) -> int:
    """A Python integer as int64 arithmetic would hold it."""
    return (word + 2**63) % 2**64 - 2**63


LOW32 = 0xFFFFFFFF
GOLDEN = _signed(0x9E3779B97F4A7C15)
STIR = _signed(0xD6E8FEB86659FD93)
# One constant per use, so that the same number means different things as a seed, as folded data and as an index of
# `split`. They are the first fractional bits of the square roots of 2, 3 and 5.
SEED = _signed(0x6A09E667F3BCC908)
FOLD = _signed(0xBB67AE8584CAA73B)
SPLIT = _signed(0x3C6EF372FE94F82B)


def key(seed: int | Tensor, device: torch.device | str | None = None) -> Tensor:
    """The root of a run's randomness.

    Args:
        seed: any integer, taken modulo 2**64, or a 0-d integer tensor.
        device: where the key lives, and with it every draw; a tensor's own device by default.

    Returns:
        0-d int64.

    >>> key(0).shape, key(0).dtype, bool(key(0) == key(1))
    (torch.Size([]), torch.int64, False)
    """
    if isinstance(seed, Tensor):
        return word(SEED, seed.to(device=device, dtype=torch.int64))
    return torch.full((), word(SEED, _signed(seed)), dtype=torch.int64, device=device)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """A new key for `data`: a step, an index, a member. One to one in `data`, and order matters when folds are chained.

    Args:
        key: 0-d int64.
        data: an integer, or an integer tensor (0-d, or any shape for as many keys).

    >>> bool(fold_in(key(0), 3) == fold_in(key(0), torch.tensor(3)))
    True
    """
    counter = data.to(torch.int64) if isinstance(data, Tensor) else _signed(data)
    return word(settled(key), counter ^ FOLD)


def descendant(seed: int, *data: int) -> int:
    """The key of a seed with `data` folded in, one after another, as a Python integer: for the host, who draws little.

    >>> descendant(3, 1, 2) == int(fold_in(fold_in(key(3), 1), 2))
    True
    """
    found = word(SEED, _signed(seed))
    for datum in data:
        found = word(found, _signed(datum) ^ FOLD)
    return found


def split(key: Tensor, n: int = 2) -> Tensor:
    """`n` independent keys, (n,) int64, none of them one that `fold_in` gives.

    >>> a, b = split(key(0))
    >>> bool(a == b)
    False
    """
    return word(settled(key), torch.arange(n, device=key.device) ^ SPLIT)


def bits(key: Tensor, shape: Shape = ()) -> Tensor:
    """Words of 64 random bits, int64."""
    return _words(key, shape)


def uniform(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform on [0, 1), as many random bits as the dtype's significand holds, so 1.0 never comes out.

    Args:
        key: 0-d int64.
        shape: of the draw.
        dtype: float64 (53 bits), float32 (24), float16 (11) or bfloat16 (8).

    >>> bool(uniform(key(0), (1000,)).max() < 1)
    True
    """
    n_bits = 1 - round(math.log2(torch.finfo(dtype).eps))
    return _shift(_words(key, shape), 64 - n_bits).to(dtype) * 2.0**-n_bits


def normal(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal (Box and Muller, 1958, the cosine branch); half precisions are rounded from float32.

    >>> normal(key(0), (2, 3)).shape
    torch.Size([2, 3])
    """
    if math.prod(shape) == 1:
        return _alone(normal, key, shape, dtype)
    if dtype == torch.float64:
        first, angle = (_shift(word, 11) for word in _words(key, (2, *shape)).unbind())
        radius, turn = (first + 1).to(dtype) * 2.0**-53, angle.to(dtype) * 2.0**-53
    else:
        word = _words(key, shape)
        radius, turn = _open_low(word), ((word >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24
    return ((-2 * radius.log()).sqrt() * (turn * (2 * math.pi)).cos()).to(dtype)


def exponential(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Exponential with rate 1, above zero always; half precisions are rounded from float32."""
    if math.prod(shape) == 1:
        return _alone(exponential, key, shape, dtype)
    if dtype == torch.float64:
        unit = (_shift(_words(key, shape), 11) + 1).to(dtype) * 2.0**-53
    else:
        unit = _open_low(_words(key, shape))
    return (-unit.log()).clamp(min=torch.finfo(unit.dtype).eps / 2).to(dtype)


def bernoulli(key: Tensor, p: float | Tensor, shape: Shape = ()) -> Tensor:
    """True with probability `p`, rounded to a multiple of 2**-32.

    Args:
        key: 0-d int64.
        p: in [0, 1]; a number, a 0-d tensor, or a tensor that broadcasts against `shape`.
        shape: of the draw.

    Returns:
        bool.

    >>> bernoulli(key(0), 1.0, (2,)), bernoulli(key(0), 0.0, (2,))
    (tensor([True, True]), tensor([False, False]))
    """
    if isinstance(p, Tensor):
        threshold: int | Tensor = (p.to(torch.float64) * 2.0**32).round().to(torch.int64) - 2**31
    else:
        threshold = round(p * 2**32) - 2**31
    return (_words(key, shape) >> 32) < threshold


def randint(key: Tensor, shape: Shape, low: int, high: int) -> Tensor:
    """Integers on [low, high), int64, even to within 2**-64 (Lemire, 2019, no rejection).

    Raises:
        ValueError: `high` is not above `low`.

    >>> bool((randint(key(0), (100,), -2, 3) < 3).all())
    True
    """
    if high <= low:
        raise ValueError(f"randint needs low < high; found low={low}, high={high}")
    return _multiply_high(_words(key, shape), high - low) + low


def permutation(key: Tensor, n: int) -> Tensor:
    """The integers 0 … n-1 in random order, (n,) int64."""
    return torch.sort(_words(key, (n,)), stable=True).indices


def _words(key: Tensor, shape: Shape) -> Tensor:
    """64 random bits for each of the counters 1, 2, …"""
    counter = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=key.device)
    return word(settled(key), counter.reshape(tuple(shape)))


def word(key: Word, counter: Word) -> Word:
    """64 random bits, one to one in `counter`: SplitMix64's finaliser with the key added between its two products.

    Args:
        key: 0-d int64, or a Python integer in the range of one.
        counter: any shape, int64; a tensor, a NumPy array or a Python integer.

    >>> word(5, 3) == int(word(torch.tensor(5), torch.tensor(3)))
    True
    """
    mixed = _wrap((counter ^ key) * GOLDEN)
    mixed = _wrap((mixed ^ _shift(mixed, 30)) * _signed(0xBF58476D1CE4E5B9) + _wrap(key * STIR))
    mixed = _wrap((mixed ^ _shift(mixed, 27)) * _signed(0x94D049BB133111EB))
    return mixed ^ _shift(mixed, 31)


def settled(word: Tensor) -> Tensor:
    """The same tensor; Inductor writes it to memory here instead of copying its expression into every reader.

    Of a part of a tensor, as `split` gives, it would write the whole, and read the first part of that.
    """
    word = word ^ 0 if word.storage_offset() and not word.is_floating_point() else word
    return word.as_strided(word.shape, word.stride())


def _wrap(word: Word) -> Word:
    return _signed(word) if isinstance(word, int) else word


def _shift(word: Word, n: int) -> Word:
    """Logical shift to the right: int64's own shift copies the sign."""
    return (word >> n) & ((1 << (64 - n)) - 1)


def _alone(draw: Callable[..., Tensor], key: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """One number, as the first of two: a lone one gets scalar code from Inductor, whose logarithm rounds otherwise."""
    return settled(draw(key, (2,), dtype))[:1].reshape(tuple(shape))


def _open_low(word: Tensor) -> Tensor:
    """The high 32 bits as a float32 on (0, 1]."""
    return (_shift(word, 32) + 1).to(torch.float32) * 2.0**-32


def _multiply_high(word: Tensor, factor: int) -> Tensor:
    """The high 64 bits of the 128-bit product of an unsigned word and `factor` < 2**64, by 32-bit halves."""
    high, low = _shift(word, 32), word & LOW32
    if factor <= 2**31:
        return _shift(high * factor + _shift(low * factor, 32), 32)
    cross, straight = high * (factor & LOW32), low * (factor >> 32)
    carry = _shift(low * (factor & LOW32), 32) + (cross & LOW32) + (straight & LOW32)
    return high * (factor >> 32) + _shift(cross, 32) + _shift(straight, 32) + _shift(carry, 32)
