"""Arrays and tables on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftrainer.components.data.arrays import Arrays
from ftrainer.components.data.csv import CSV
from ftrainer.components.data.extras import require
from ftrainer.components.data.parquet import Parquet
from ftrainer.components.data.table import TableSpec
from registry import ConfigError

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")}


def opened(spec: Any, seed: int = 0) -> Any:
    return spec.open(seed=seed, device="cpu")


class TestArrays:
    def test_npz_and_npy_are_the_same_data(self, files: dict[str, str], tmp_path: Path) -> None:
        np.savez(tmp_path / "both.npz", x=X, y=Y)
        one = opened(Arrays(files=str(tmp_path / "both.npz"), batch_size=4))
        other = opened(Arrays(files=files, batch_size=4))
        for a, b in zip(one.batches("train", 2), other.batches("train", 2), strict=True):
            assert torch.equal(a["x"], b["x"])
            assert torch.equal(a["y"], b["y"])
        assert one.fields["y"].dtype == torch.int64

    def test_mapped_files_give_the_same_batches(self, files: dict[str, str]) -> None:
        mapped = opened(Arrays(files=files, batch_size=4, memory_map=True, val_fraction=0.2))
        loaded = opened(Arrays(files=files, batch_size=4, val_fraction=0.2))
        for split in ("train", "val"):
            for a, b in zip(mapped.batches(split, 0), loaded.batches(split, 0), strict=True):
                assert torch.equal(a["x"], b["x"])
        torch.testing.assert_close(mapped.statistics()["x"], loaded.statistics()["x"])

    def test_writing_to_a_mapped_batch_leaves_the_file_alone(self, files: dict[str, str]) -> None:
        data = opened(Arrays(files=files, batch_size=10, memory_map=True))
        next(data.batches("train", 0))["x"].zero_()
        data.fields["x"].zero_()
        assert np.array_equal(np.load(files["x"]), X)

    def test_what_is_refused(self, files: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "text.npy").write_text("no array")
        np.save(tmp_path / "words.npy", np.array(["a", "b"]))
        np.savez(tmp_path / "nan.npz", x=[np.nan])
        np.save(tmp_path / "nan.npy", np.array([[0.0], [np.inf]]))
        cases: list[tuple[Any, str]] = [
            ({"x": str(tmp_path / "none.npy")}, r"files.x: no such file; found .*none.npy"),
            (str(tmp_path / "none.npz"), "files: no such file"),
            ({"x": str(tmp_path / "text.npy")}, r"files.x: cannot be read: .*expected a .npy or .npz file"),
            (files["x"], r"files: holds one array, without a name; found .*x.npy \(write \{field: file\}\)"),
            (str(tmp_path / "nan.npz"), r"^files: .*nan.npz/x is not finite at row 0"),
            ({"x": str(tmp_path / "words.npy")}, "files: x is no array of numbers; found <U1 of shape"),
            ({"x": str(tmp_path / "nan.npy")}, "x is not finite at row 1"),
        ]
        for source, message in cases:
            with pytest.raises(ConfigError, match=message):
                opened(Arrays(files=source, batch_size=1))
        with pytest.raises(ConfigError, match=r"memory_map: only `.npy` files can stay on disk"):
            Arrays(files="both.npz", batch_size=1, memory_map=True)

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "o.npy", np.array([object()], dtype=object), allow_pickle=True)
        with pytest.raises(ConfigError, match="Object arrays cannot be loaded"):
            opened(Arrays(files={"x": str(tmp_path / "o.npy")}, batch_size=1))
        np.savez(tmp_path / "o.npz", x=np.array([object()], dtype=object))
        with pytest.raises(ConfigError, match="files: cannot be read: Object arrays cannot be loaded"):
            opened(Arrays(files=str(tmp_path / "o.npz"), batch_size=1))


def write_csv(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def write_parquet(path: Path, **columns: Any) -> str:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    return str(path)


FIELDS = {"x": ["a", "b"], "y": "label"}


class TestTables:
    def test_columns_join_into_fields(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "t.csv", 'a,label,"b",skipped\n1,0,2.5,word\n3,1,"4",word\n')
        fields = CSV(path=path, fields=FIELDS, dtypes={"y": "int64"}, batch_size=1).load().fields
        assert fields["x"].tolist() == [[1, 2.5], [3, 4]]
        assert fields["y"].tolist() == [0, 1]
        assert (fields["x"].dtype, fields["y"].dtype) == (torch.float32, torch.int64)

    def test_parquet_and_csv_agree(self, tmp_path: Path) -> None:
        table = write_parquet(tmp_path / "t.parquet", a=[1.0, 3.0], label=[0, 1], b=[2.5, 4.0], word=["x", "y"])
        text = write_csv(tmp_path / "t.csv", "a;label;b\n1;0;2.5\n3;1;4\n")
        one = Parquet(path=table, fields=FIELDS, batch_size=1).load().fields
        other = CSV(path=text, fields=FIELDS, delimiter=";", batch_size=1).load().fields
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["y"], other["y"])

    def test_large_integers_survive(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "t.parquet", label=[2**60 + 1, 5])
        fields = Parquet(path=path, fields={"y": "label"}, dtypes={"y": "int64"}, batch_size=1).load().fields
        assert fields["y"].tolist() == [2**60 + 1, 5]

    @pytest.mark.parametrize(
        ("text", "options", "message"),
        [
            ("a,b\n1,2\n", {}, "fields.y: no such column; found 'label'"),
            ("a,b,labels\n1,2,3\n", {}, "did you mean 'labels'"),
            ("", {}, "fields.x: no such column; found 'a'"),
            ("a,b,label\n1,2,three\n", {}, "path: not a table of numbers: could not convert string 'three'"),
            ("a,b,label\n1,,3\n", {}, "path: not a table of numbers: could not convert string ''"),
            ("a,b,label\n1,nan,3\n", {}, r"t.csv/b is not finite at row 0; found nan"),
            ("a,b,label\n1,2,0.5\n", {"dtypes": {"y": "int64"}}, "dtypes.y: y has values that torch.int64 cannot hold"),
        ],
    )
    def test_tables_that_do_not_fit(self, tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            CSV(path=write_csv(tmp_path / "t.csv", text), fields=FIELDS, batch_size=1, **options).load()

    def test_files_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("a\n1\n", encoding="utf-16")
        with pytest.raises(ConfigError, match="path: cannot be read: 'utf-8' codec"):
            CSV(path=str(tmp_path / "t.csv"), fields={"y": "a"}, batch_size=1).load()
        with pytest.raises(ConfigError, match=r"path: cannot be read: .*; expected a Parquet file"):
            Parquet(path=str(tmp_path / "t.csv"), fields={"y": "a"}, batch_size=1).load()

    def test_a_table_without_rows(self, tmp_path: Path) -> None:
        spec = CSV(path=write_csv(tmp_path / "t.csv", "a\n"), fields={"y": "a"}, batch_size=1)
        with pytest.raises(ConfigError, match="fields must have the same number of examples, at least one; found y: 0"):
            opened(spec)

    def test_dtypes_are_of_fields(self) -> None:
        with pytest.raises(ConfigError, match=r"dtypes.yy: no such field; did you mean 'y'"):
            CSV(path="unused", fields={"y": "a"}, dtypes={"yy": "int64"}, batch_size=1)

    def test_missing_file(self) -> None:
        with pytest.raises(ConfigError, match=r"path: no such file; found nowhere.csv"):
            CSV(path="nowhere.csv", fields={"y": "a"}, batch_size=1).load()

    def test_text_in_parquet(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "t.parquet", a=["x", "y"])
        with pytest.raises(ConfigError, match="path: column 'a' does not hold numbers; found string"):
            Parquet(path=path, fields={"y": "a"}, batch_size=1).load()

    def test_a_format_must_read(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "t.csv", "a\n1\n")
        spec = TableSpec(path=path, fields={"y": "a"}, batch_size=1)
        with pytest.raises(NotImplementedError, match="TableSpec reads no names"):
            spec.load()
        with pytest.raises(NotImplementedError, match="TableSpec reads no columns"):
            spec.read(("a",))


def test_a_missing_package_names_its_extra() -> None:
    message = r"data.parquet needs the package 'no_such_package': pip install 'ftrainer\[parquet\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        require("no_such_package", extra="parquet", by="data.parquet")
