import numpy as np
import pandas as pd
import pytest

from rfadapt.tables import _formats, open_table, read_table, write_table

COLUMNS = ["width", "height", "r, with comma"]


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(50, 3))


@pytest.fixture
def small_chunks(monkeypatch):
    """Seven rows of three columns a chunk, so that 50 rows need eight."""
    monkeypatch.setattr(_formats, "CHUNK_BYTES", 7 * 3 * 8)


def write(path, X, columns=None, chunk=13):
    with write_table(path, columns) as append:
        for start in range(0, len(X), chunk):
            append(X[start : start + chunk])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz"])
def test_round_trip_in_chunks(tmp_path, points, small_chunks, suffix):
    path = write(tmp_path / f"points{suffix}", points, COLUMNS)
    reader = open_table(path)
    chunks = list(reader.chunks())
    assert [len(chunk) for chunk in chunks] == [7] * 7 + [1]
    np.testing.assert_allclose(np.concatenate([np.asarray(chunk) for chunk in chunks]), points, rtol=1e-14)
    X, y = read_table(path)
    assert y is None
    np.testing.assert_allclose(np.asarray(X), points, rtol=1e-14)
    if suffix in (".csv", ".parquet"):
        assert list(X.columns) == COLUMNS == reader.columns
        assert list(X.index) == list(range(50))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz"])
def test_float32_stays(tmp_path, points, suffix):
    X, _ = read_table(write(tmp_path / f"points{suffix}", points.astype(np.float32), COLUMNS))
    assert np.asarray(X).dtype == np.float32


def test_other_programs_read_what_is_written(tmp_path, points):
    np.testing.assert_array_equal(np.load(write(tmp_path / "a.npy", points)), points)
    np.testing.assert_array_equal(np.load(write(tmp_path / "a.npz", points))["X"], points)
    csv = pd.read_csv(write(tmp_path / "a.csv", points, COLUMNS))
    pd.testing.assert_frame_equal(csv, pd.DataFrame(points, columns=COLUMNS), rtol=1e-14)
    parquet = pd.read_parquet(write(tmp_path / "a.parquet", points, COLUMNS))
    pd.testing.assert_frame_equal(parquet, pd.DataFrame(points, columns=COLUMNS))
    assert pd.read_parquet(write(tmp_path / "b.parquet", points)).columns.tolist() == ["0", "1", "2"]


def test_npy_stays_on_disk(tmp_path, points):
    assert isinstance(read_table(write(tmp_path / "a.npy", points))[0], np.memmap)


def test_csv_without_header_and_with_a_header_that_counts(tmp_path, points):
    X, _ = read_table(write(tmp_path / "bare.csv", points))
    assert isinstance(X, np.ndarray)
    np.testing.assert_allclose(X, points, rtol=1e-14)
    pd.DataFrame(points).to_csv(tmp_path / "counted.csv", index=False)
    counted, _ = read_table(tmp_path / "counted.csv")
    assert counted.columns.tolist() == ["0", "1", "2"] and len(counted) == 50


def test_drop_and_label(tmp_path, points, small_chunks):
    frame = pd.DataFrame(points, columns=list("abc")).assign(name="x", y=["cat", "dog"] * 25)
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        X, y = read_table(path, drop=["name", "b"], label="y")
        assert X.columns.tolist() == ["a", "c"]
        np.testing.assert_allclose(X["c"], points[:, 2], rtol=1e-14)
        assert y.tolist() == ["cat", "dog"] * 25
    np.savez(tmp_path / "t.npz", X=points, y=np.arange(50))
    X, y = read_table(tmp_path / "t.npz", label="y")
    assert X.shape == (50, 3) and y.tolist() == list(range(50))


def test_npz_key(tmp_path, points):
    path = tmp_path / "two.npz"
    np.savez(path, A=points, B=points + 1, y=np.zeros(3))
    np.testing.assert_array_equal(read_table(f"{path}:B")[0], points + 1)
    with pytest.raises(ValueError, match=r"holds 3 arrays, 'A', 'B', 'y'. Choose one: .*two.npz:KEY"):
        open_table(path)
    with pytest.raises(ValueError, match="no array 'C'; the file holds 'A', 'B', 'y'"):
        open_table(f"{path}:C")
    with pytest.raises(ValueError, match=r"one label a row, shape \(50,\); got \(3,\)"):
        open_table(f"{path}:A", label="y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n1,2\n", "first line is empty"),
        ("a,b\n", "header but no rows"),
        ("a,b\n1,2\n3\n", "row 1, column 'b' is missing"),
        ("a,b\n1,2\n3,inf\n", "row 1, column 'b' is missing or infinite"),
        ("a,b\n1,2\n3,4,5\n", "line 3|longer than the 2 columns"),
        ("a,b\n1,2,3\n3,4,5\n", "longer than the 2 columns"),
        ("a,b\n1,2\n3,4\n5,six\n", r"column 'b' is not numeric \(row 2 holds 'six'\).*--drop 'b'"),
        ("a,b\nx,y\n", "columns 'a', 'b' are not numeric"),
        (",a\n0,1\n1,2\n", "a column has no name.*--drop 'Unnamed: 0'"),
        ("a;b\n1;2\n", "separated by ';'"),
        ("a,a\n1,2\n", "more than one column 'a'"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_errors_count_rows_over_chunks(tmp_path, points, small_chunks):
    points[31, 2] = np.nan
    for suffix in (".csv", ".parquet", ".npy"):
        path = write(tmp_path / f"holes{suffix}", points, COLUMNS)
        with pytest.raises(ValueError, match="row 31, column"):
            list(open_table(path).chunks())


def test_missing_labels_and_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,cat\n2,\n")
    with pytest.raises(ValueError, match="label 'y' is missing in row 1"):
        read_table(path, label="y")
    with pytest.raises(ValueError, match="no column 'z'; the columns are 'a', 'y'"):
        read_table(path, label="z")
    with pytest.raises(ValueError, match="no column is left"):
        read_table(path, drop=["a", "y"])


def test_wrong_arrays(tmp_path, points):
    def attempt(array, message):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            open_table(tmp_path / "a.npy")

    attempt(points[0], r"must have shape \(n_samples, n_features\); got \(3,\)")
    attempt(points.reshape(5, 10, 3), "Flatten each sample first")
    attempt(points + 1j, "real numbers; got dtype complex128")
    attempt(np.array([["a"]]), "real numbers")
    attempt(np.array([[{}]]), "Python objects")
    attempt(np.zeros((0, 3)), "empty")


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz"])
def test_truncated_and_foreign_files(tmp_path, points, suffix):
    path = write(tmp_path / f"a{suffix}", points, COLUMNS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"not a readable {suffix}|not a readable Parquet"):
        read_table(path)
    path.write_text("hello, this is not data")
    with pytest.raises(ValueError, match=f"not a readable {suffix}|not a readable Parquet"):
        read_table(path)


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .csv, .parquet, .npy or .npz; got '.*data.xlsx'"):
        open_table(tmp_path / "data.xlsx")
    with pytest.raises(FileNotFoundError, match="There is no file .*data.csv"):
        open_table(tmp_path / "data.csv")
    with pytest.raises(ValueError, match="must end in"), write_table(tmp_path / "data.txt"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz"])
def test_nothing_half_written_is_left(tmp_path, points, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("the previous result")
    with pytest.raises(RuntimeError), write_table(path, COLUMNS) as append:
        append(points)
        raise RuntimeError
    assert path.read_text() == "the previous result"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_output_folder_is_checked_before_the_block(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"), write_table(tmp_path / "no" / "out.csv"):
        raise AssertionError("not reached")
