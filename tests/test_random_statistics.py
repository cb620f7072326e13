"""Chance: each test states its sample size, and its seed is fixed, so that it passes always or never.

A statistic is turned into a standard score; with some 10,000 scores looked at in all, 5.5 is a chance of 4e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from ftrainer.functional import random
from ftrainer.functional.random import bits, fold_in, key, split

N = 2**20
LIMIT = 5.5


def first_words(keys: Tensor, n: int = 1) -> Tensor:
    return vmap(lambda one: bits(one, (n,)))(keys).flatten()


STREAMS: dict[str, Callable[[], Tensor]] = {
    "one key": lambda: bits(key(0), (N,)),
    "consecutive seeds": lambda: first_words(key(torch.arange(N))),
    "consecutive steps": lambda: first_words(fold_in(key(1), torch.arange(N))),
    "members": lambda: first_words(split(key(2), N)),
    "calls within steps": lambda: first_words(
        vmap(lambda step: fold_in(fold_in(key(3), step), torch.arange(16)))(torch.arange(N // 16)).flatten()
    ),
    "short draws of many keys": lambda: first_words(fold_in(key(4), torch.arange(N // 64)), 64),
    "keys that nobody hashed": lambda: first_words(torch.arange(N // 64), 64),
}


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Tensor:
    """2**20 words of 64 bits."""
    return STREAMS[request.param]()


def chi_square(cells: Tensor, n_cells: int) -> float:
    """How far counts are from equal, as a standard score (Wilson and Hilferty, 1931)."""
    counts = torch.bincount(cells, minlength=n_cells).double()
    expected = cells.numel() / n_cells
    ratio = ((counts - expected) ** 2 / expected).sum().item() / (n_cells - 1)
    spread = 2 / (9 * (n_cells - 1))
    return (ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def plus_minus(words: Tensor) -> Tensor:
    """(n, 64) of ±1, one column for each bit."""
    return ((words[:, None] >> torch.arange(64)) & 1).float() * 2 - 1


def test_every_byte_is_uniform(stream: Tensor) -> None:
    for position in range(0, 64, 8):
        assert abs(chi_square((stream >> position) & 255, 256)) < LIMIT


def test_high_bits_are_uniform_in_4096_cells(stream: Tensor) -> None:
    assert abs(chi_square((stream >> 52) & 4095, 4096)) < LIMIT


@pytest.mark.parametrize("lag", [1, 2, 8, 64, 2**14])
def test_neighbours_are_independent(stream: Tensor, lag: int) -> None:
    first, second = stream[:-lag], stream[lag:]
    for position in (58, 26, 0):
        pairs = (((first >> position) & 63) << 6) | ((second >> position) & 63)
        assert abs(chi_square(pairs, 4096)) < LIMIT


def test_no_bit_tells_of_another(stream: Tensor) -> None:
    """65,536 words: all 64 bits with each other, and with all 64 bits of the next word."""
    signs = plus_minus(stream[: 2**16 + 1])
    scale = math.sqrt(2**16)
    within, across = signs[1:].T @ signs[1:] / scale, signs[:-1].T @ signs[1:] / scale
    assert within.fill_diagonal_(0).abs().max() < LIMIT
    assert across.abs().max() < LIMIT
    assert (signs[1:].sum(0) / scale).abs().max() < LIMIT


def test_no_two_words_are_equal(stream: Tensor) -> None:
    assert stream.unique().numel() == N


def test_flipping_any_bit_of_a_key_flips_half_the_bits() -> None:
    """4,096 keys, 64 input bits, 64 output bits."""
    keys = split(key(0), 4096)
    for bit in range(64):
        changed = first_words(keys ^ (1 << bit if bit < 63 else -(2**63))) ^ first_words(keys)
        assert (plus_minus(changed).sum(0) / 64).abs().max() < LIMIT


def test_streams_of_two_keys_do_not_overlap() -> None:
    """1,024 keys of 1,024 words: some 10**12 pairs, of which 64 bits let 3e-8 coincide."""
    words = first_words(fold_in(key(6), torch.arange(1024)), 1024)
    assert words.unique().numel() == N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_has_the_moments_and_tails(dtype: torch.dtype) -> None:
    """2**20 normals: four moments, the share beyond 1 to 4 standard deviations, and neighbours' correlation."""
    x = random.normal(key(7), (N,), dtype).double()
    root = math.sqrt(N)
    assert abs(x.mean().item()) * root < LIMIT
    assert abs((x**2).mean().item() - 1) * root / math.sqrt(2) < LIMIT
    assert abs((x**3).mean().item()) * root / math.sqrt(15) < LIMIT
    assert abs((x**4).mean().item() - 3) * root / math.sqrt(96) < LIMIT
    assert abs((x[1:] * x[:-1]).mean().item()) * root < LIMIT
    for bound in (1, 2, 3, 4):
        share = math.erfc(bound / math.sqrt(2))
        assert abs((x.abs() > bound).double().mean().item() - share) * root / math.sqrt(share) < LIMIT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_has_the_distribution(dtype: torch.dtype) -> None:
    """Kolmogorov and Smirnov on 2**20 normals; 2.5 is a chance of 7e-6."""
    x = random.normal(key(8), (N,), dtype).double().sort().values
    empirical = torch.arange(1, N + 1) / N
    assert (torch.special.ndtr(x) - empirical).abs().max() * math.sqrt(N) < 2.5


def test_exponential_has_the_distribution() -> None:
    """Kolmogorov and Smirnov on 2**20 draws."""
    x = random.exponential(key(8), (N,)).double().sort().values
    assert (-torch.expm1(-x) - torch.arange(1, N + 1) / N).abs().max() * math.sqrt(N) < 2.5


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_bernoulli_has_its_rate(p: float) -> None:
    """2**20 draws, and the rate of two in a row."""
    drawn = random.bernoulli(key(9), p, (N,)).double()
    for x, rate in ((drawn, p), (drawn[1:] * drawn[:-1], p * p)):
        assert abs(x.mean().item() - rate) * math.sqrt(N / rate) < LIMIT


@pytest.mark.parametrize("n", [3, 7, 1000])
def test_randint_is_uniform(n: int) -> None:
    assert abs(chi_square(random.randint(key(10), (N,), 0, n), n)) < LIMIT


def test_permutations_of_four_are_equally_likely() -> None:
    """65,536 permutations in 24 orders."""
    drawn = vmap(lambda one: random.permutation(one, 4))(split(key(11), 2**16))
    _, order = (drawn * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_inverse=True)
    assert abs(chi_square(order, 24)) < LIMIT
