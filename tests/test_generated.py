"""Generated code on disk: what is stored computes what was compiled, damage is noticed, callers share nothing."""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftrainer.deps import generated, inductor, preallocate
from ftrainer.functional.jit import jit

pytestmark = [
    pytest.mark.skipif(inductor.why_not("cpu") is not None, reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def layer(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    h = (x @ w).relu()
    return w - 0.1 * (h.t() @ x).t(), (h * h).sum(0) + 1


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTRAINER_CACHE", str(tmp_path))
    return tmp_path / "graphs"


def compiled() -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = jit(layer, backend="inductor")(X, W)
    return found


X, W = torch.linspace(-1, 1, 60).reshape(10, 6), torch.linspace(1, -1, 36).reshape(6, 6)


def test_stored_code_is_found_again_and_computes_the_same(cache: Path) -> None:
    first = compiled()
    (folder,) = cache.iterdir()
    written = (folder / generated.SOURCE).stat().st_mtime_ns
    second = compiled()
    assert (folder / generated.SOURCE).stat().st_mtime_ns == written
    for a, b, expected in zip(first, second, layer(X, W), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, expected)


def test_another_process_needs_no_compiler_for_a_known_graph(cache: Path) -> None:
    compiled()
    script = "import sys; from tests.test_generated import compiled; compiled(); print(sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "torch._inductor.compile_fx" not in run.stdout
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".py", ".so", ".json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_damaged_code_is_noticed_and_compiled_anew(
    cache: Path, suffix: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = compiled()
    victim = next(path for folder in cache.iterdir() for path in sorted(folder.iterdir()) if path.suffix == suffix)
    content = victim.read_bytes()
    victim.unlink()  # a library in use is not written over
    if damage != "gone":
        victim.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-9] + b"!" * 9)
    with caplog.at_level(logging.WARNING, "ftrainer.jit"):
        again = compiled()
    assert "cannot be used" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    caplog.clear()
    compiled()
    assert "cannot be used" not in caplog.text


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"call.py": "0"}', "\\xff"])
def test_a_table_of_contents_that_is_none_is_noticed(tmp_path: Path, content: str) -> None:
    for name, text in {"call.py": "def call(inputs): ...", "contents.json": content}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011  (JSON's own, or ours)
        generated.load(tmp_path)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FTRAINER_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "ftrainer.jit"):
        found = compiled()
    assert "the compiled code cannot be stored: " in caplog.text
    torch.testing.assert_close(found, layer(X, W))


@pytest.mark.parametrize("compiler", ["no-compiler", "."])
def test_without_a_compiler_the_graph_is_replayed(compiler: str, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    inductor.why_not.cache_clear()
    try:
        with torch._inductor.config.patch({"cpp.cxx": (compiler,)}):
            found = compiled()
    finally:
        inductor.why_not.cache_clear()
    assert "layer runs on the backend trace: no C++ compiler was found" in caplog.text
    torch.testing.assert_close(found, layer(X, W))


def test_results_are_the_callers_own(cache: Path) -> None:
    step = jit(layer, backend="inductor")
    kept = step(X, W)
    before = [leaf.clone() for leaf in kept]
    step(-X, 3 * W)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))


def test_threads_do_not_write_into_each_others_intermediates(cache: Path) -> None:
    step, wrong = jit(layer, backend="inductor"), list[int]()
    inputs = [(X * (n + 1), W) for n in range(4)]
    expected = [[leaf.clone() for leaf in step(*given)] for given in inputs]

    def run(n: int) -> None:
        for _ in range(200):
            if not all(torch.equal(a, b) for a, b in zip(step(*inputs[n]), expected[n], strict=True)):
                wrong.append(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_that_are_arguments_are_compiled_without_being_stored(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.arange(6.0)
    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        same, row, double = jit(lambda x: (x, x.view(2, 3)[1], 2 * x), backend="inductor")(x)
    assert torch.equal(same, x)
    assert torch.equal(row, x[3:])
    assert torch.equal(double, 2 * x)
    assert "a result is, or is a view of, an argument" in caplog.text


def test_a_function_that_computes_nothing_is_compiled_too(cache: Path) -> None:
    x = torch.arange(6.0)
    same, nothing, number, name = jit(lambda x: (x, None, 0.5, "name"), backend="inductor")(x)
    assert torch.equal(same, x)
    assert (nothing, number, name) == (None, 0.5, "name")


def test_memory_that_holds_the_opposite_is_read_as_what_it_stands_for(cache: Path) -> None:
    x = torch.complex(torch.ones(3), torch.arange(3.0)).conj().imag
    double = jit(lambda x: 2 * x + 1, backend="inductor")
    assert double(x.resolve_neg()).tolist() == double(x).tolist() == [1, -1, -3]


def test_arguments_that_share_memory_are_seen_through_each_other(cache: Path) -> None:
    def move(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + 1, b.sum()

    shared, alone = torch.zeros(4), torch.zeros(4)
    assert jit(move, backend="inductor", donate=(0,))(shared, shared)[1] == jit(move, backend="eager", donate=(0,))(
        alone, alone
    )[1]  # fmt: skip
    assert torch.equal(shared, alone)


SOURCE = """
import torch
empty_strided_cpu = torch._C._dynamo.guards._empty_strided_cpu
reinterpret_tensor = torch._C._dynamo.guards._reinterpret_tensor

def call(args):
    a, = args
    args.clear()
    small = empty_strided_cpu((2, 3), (3, 1), torch.float32)
    torch.mul(a, 2, out=small)
    kept = empty_strided_cpu((2, 3), (3, 1), torch.float32)
    torch.add(small, 1, out=kept)
    other = small; del small
    flat = reinterpret_tensor(kept, (6,), (1,), 0)
    huge = empty_strided_cpu((1000, 1000), (1000, 1), torch.float32)
    seen = empty_strided_cpu((1,), (1,), torch.float32)
    torch.sum(reinterpret_tensor(other, (6,), (1,), 0), 0, True, out=seen)
    handed = torch.reshape(empty, (1,)) if False else torch.reshape(other, (6,))
    del huge
    return (flat, seen, handed)
"""


def test_what_leaves_a_call_is_made_in_every_call() -> None:
    module = preallocate.preallocated(ast.parse(SOURCE))
    outside = {name for part in module.body for name in generated.defined(part)}
    assert not outside & {"small", "other", "kept", "flat", "huge"}  # `other` may be handed on by reshape
    tame = preallocate.preallocated(ast.parse(SOURCE.replace("torch.reshape(other, (6,))", "None")))
    outside = {name for part in tame.body for name in generated.defined(part)}
    assert {"small", "other", "view_0"} <= outside
    assert not outside & {"kept", "flat", "huge"}
    for text in (module, tame):
        call = generated.executed(text, {})
        flat, seen, _ = call([torch.ones(2, 3)])
        assert flat.tolist() == [3.0] * 6
        assert seen.tolist() == [12.0]


def test_at_most_four_megabytes_are_kept() -> None:
    makes = "".join(f"    b{n} = empty_strided_cpu((65536,), (1,), torch.float32)\n" for n in range(40))
    source = f"def call(args):\n    args.clear()\n{makes}    return ()\n"
    module = preallocate.preallocated(ast.parse(source))
    assert len([part for part in module.body if isinstance(part, ast.Assign)]) == preallocate.TOTAL // 2**18


def test_code_with_a_branch_is_left_as_it_is() -> None:
    source = "def call(args):\n    if args:\n        x = empty_strided_cpu((2,), (1,), torch.float32)\n    return ()"
    assert ast.unparse(preallocate.preallocated(ast.parse(source))) == source


def test_code_that_needs_more_than_torch_is_not_stored(tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    source = "from torch._inductor import metrics\ndef call(args):\n    return metrics"
    exec(source, namespace)
    call: generated.Call = namespace["call"]  # type: ignore[assignment]
    with pytest.raises(generated.NotStorableError, match="the generated code reads metrics"):
        generated.store(call, source, tmp_path / "code")
    with pytest.raises(generated.NotStorableError, match="is called through"):
        generated.store(print, source, tmp_path / "code")  # type: ignore[arg-type]
    source = "def call(args):\n    return extern_kernels.own(args)"
    exec(source, namespace := {"extern_kernels": type("Kernels", (), {"own": staticmethod(lambda x: x)})})
    with pytest.raises(generated.NotStorableError, match="the generated code calls <function"):
        generated.store(namespace["call"], source, tmp_path / "code")  # type: ignore[arg-type]
    assert not (tmp_path / "code").exists()


def test_the_compiler_keeps_its_own_files_in_the_cache_too(cache: Path) -> None:
    before = os.environ.get(inductor.CACHE)
    jit(lambda x: (x.sin() * 0.7312).cumsum(0), backend="inductor")(X)
    assert list((cache.parent / "kernels").rglob("*.so"))
    assert os.environ.get(inductor.CACHE) == before


def test_a_cache_that_the_user_chose_for_the_compiler_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(inductor.CACHE, str(cache / "chosen"))
    with inductor.settings():
        assert os.environ[inductor.CACHE] == str(cache / "chosen")
    assert os.environ[inductor.CACHE] == str(cache / "chosen")
