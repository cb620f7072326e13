"""The clock: epochs, steps and micro-batches are arithmetic on one counter."""

from hypothesis import given
from hypothesis import strategies as st

from ftrainer.engine.position import Clock

sizes = st.integers(1, 30)


@given(sizes, sizes, st.integers(0, 200))
def test_attempts_count_the_applied_micro_batches(n_batches: int, accumulate: int, tick: int) -> None:
    clock = Clock(n_batches, accumulate)
    assert clock.attempts(tick) == sum(clock.applies(t) for t in range(tick))


@given(sizes, sizes, st.integers(0, 5))
def test_an_epoch_always_ends_with_an_update(n_batches: int, accumulate: int, epochs: int) -> None:
    clock = Clock(n_batches, accumulate)
    assert clock.applies(n_batches * (epochs + 1) - 1)
    assert clock.attempts(n_batches * epochs) == epochs * clock.steps_per_epoch
    assert (clock.epoch(n_batches * epochs), clock.index(n_batches * epochs)) == (epochs, 0)
