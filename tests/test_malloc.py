"""Freed memory stays with the process, unless somebody else decided that."""

from __future__ import annotations

import platform

import pytest

from ftrainer.deps import malloc

keep_freed = malloc.keep_freed.__wrapped__


def test_it_keeps_what_is_freed_where_the_c_library_is_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in malloc.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert keep_freed() is (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("name", malloc.VARIABLES)
def test_whoever_set_glibc_up_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert keep_freed() is False
