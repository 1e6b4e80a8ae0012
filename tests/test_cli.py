import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from rfadapt.base import BaseTransport
from rfadapt.baselines import BASELINES
from rfadapt.cli import main
from rfadapt.tables import _formats


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two samples, source and target, as CSV."""
    rng = np.random.default_rng(0)
    columns = ["a", "b", "c"]
    pd.DataFrame(rng.normal(size=(60, 3)), columns=columns).to_csv(tmp_path / "source.csv", index=False)
    target = rng.normal(size=(50, 3)) * [1, 2, 3] + 5
    pd.DataFrame(target, columns=columns).to_csv(tmp_path / "target.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line):
    return main(line.split())


def fit_affine():
    assert run("fit source.csv target.csv --transport affine -o model.rfa") == 0


def names(folder):
    return {file.name for file in folder.iterdir()}


def fails(line, capsys, folder):
    """The one line on stderr; nothing else may have happened."""
    before = names(folder)
    assert run(line) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("rfadapt: error: ") and captured.err.count("\n") == 1
    assert names(folder) == before
    return captured.err


def test_fit_and_transform_do_what_the_library_does(folder, capsys):
    fit_affine()
    assert run("transform model.rfa source.csv -o moved.csv") == 0
    assert "Moved 60 rows: moved.csv" in capsys.readouterr().out
    source, target = pd.read_csv("source.csv"), pd.read_csv("target.csv")
    moved = pd.read_csv("moved.csv")
    assert moved.columns.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(moved, BASELINES["affine"]().fit(source, target).transform(source), rtol=1e-9)
    assert run("transform model.rfa moved.csv --inverse -o back.csv") == 0
    np.testing.assert_allclose(pd.read_csv("back.csv"), source, atol=1e-6)
    assert names(folder) == {"source.csv", "target.csv", "model.rfa", "moved.csv", "back.csv"}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "npz"])
def test_output_kind_follows_the_suffix(folder, suffix):
    fit_affine()
    assert run(f"transform model.rfa source.csv -o moved.{suffix}") == 0
    assert run("transform model.rfa source.csv -o reference.npy") == 0
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "npy": np.load, "npz": lambda f: np.load(f)["X"]}
    np.testing.assert_allclose(read[suffix](f"moved.{suffix}"), np.load("reference.npy"), rtol=1e-14)


def test_transform_in_chunks_equals_transform_at_once(folder, monkeypatch, capsys):
    fit_affine()
    rows = np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)
    np.save("rows.npy", rows)
    expected = BaseTransport.load("model.rfa").transform(pd.DataFrame(rows, columns=["a", "b", "c"]))
    seen = []
    transform = BASELINES["affine"].transform
    monkeypatch.setattr(
        BASELINES["affine"], "transform", lambda self, X, out=None: seen.append(len(X)) or transform(self, X, out)
    )
    monkeypatch.setattr(_formats, "CHUNK_BYTES", 30 * 3 * 8)
    assert run("transform model.rfa rows.npy -o moved.npy") == 0
    assert seen == [30, 30, 30, 10]
    moved = np.load("moved.npy")
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_flow_options_reach_the_flow(folder):
    assert run("fit source.csv target.csv --scaling none --max-iter 7 --reflow 1 --seed 3 -o m.rfa") == 0
    flow = BaseTransport.load("m.rfa")
    expected = {"scaling": None, "max_iter": 7, "n_reflow": 1, "random_state": 3}
    assert {name: flow.get_params()[name] for name in expected} == expected
    assert len(flow.history_) == 2


def test_compare(folder, capsys):
    line = "compare source.csv target.csv --transports identity affine flow --max-iter 10 -o report.html"
    assert run(line) == 0
    out = capsys.readouterr().out
    assert "energy_distance" in out and "report.html" in out and "accuracy" not in out
    html = (folder / "report.html").read_text()
    assert html.count("<img") == 2 and html.count("<table") == 3
    assert "From source.csv to target.csv" in html
    assert names(folder) == {"source.csv", "target.csv", "report.html"}


def test_compare_with_labels_uses_them_and_not_as_features(folder, capsys):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 50)
    X = rng.normal(size=(100, 2)) + 6 * y[:, None]
    np.savez("both.npz", A=X, B=X + 20, y=y, kind=y)
    line = "compare both.npz:A both.npz:B --label y --target-label kind --transports identity affine -o r.html"
    assert run(line) == 0
    accuracy = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("accuracy")).split()
    assert float(accuracy[1]) < 0.7 < 0.9 < float(accuracy[2])
    assert "accuracy" in (folder / "r.html").read_text()


def test_compare_does_not_depend_on_units_unless_asked(folder, capsys):
    source, target = pd.read_csv("source.csv"), pd.read_csv("target.csv")
    for frame, name in ((source, "s"), (target, "t")):
        (frame * [1, 1000, 1]).to_csv(f"{name}.csv", index=False)

    def table(line):
        assert run(f"compare {line} --transports identity affine -o r.html") == 0
        lines = capsys.readouterr().out.splitlines()
        return next(row for row in lines if row.startswith("energy_distance "))

    assert table("source.csv target.csv") == table("s.csv t.csv")


def test_drop(folder):
    frame = pd.read_csv("source.csv").assign(id="x")
    frame.to_csv("named.csv", index=False)
    target = pd.read_csv("target.csv").assign(id="y")
    target.to_csv("target2.csv", index=False)
    assert run("fit named.csv target2.csv --drop id --transport affine -o m.rfa") == 0
    assert run("transform m.rfa named.csv --drop id -o moved.csv") == 0
    assert pd.read_csv("moved.csv").columns.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit nothing.csv target.csv -o m", "There is no file nothing.csv."),
        ("fit source.csv target.xlsx -o m", "must end in .csv, .parquet, .npy or .npz; got 'target.xlsx'"),
        ("fit source.csv target.csv -o no/m", "Cannot write no/m: there is no folder no"),
        ("fit source.csv target.csv --transport magic -o m", "no transport called 'magic'; there are flow, "),
        ("fit source.csv target.csv --transport affine --reflow 2 -o m", "--reflow is for the flow"),
        ("fit source.csv target.csv --max-iter 0 -o m", "'max_iter' parameter"),
        ("fit source.csv narrow.csv -o m", "X1 must have shape (n_samples, 3) like X0"),
        ("fit source.csv renamed.csv -o m", "X1 does not have the columns of X0"),
        ("fit source.csv words.csv -o m", "column 'b' is not numeric"),
        ("fit source.csv holes.csv -o m", "row 1, column 'b' is missing"),
        ("fit source.csv target.csv --drop d -o m", "there is no column 'd'"),
        ("compare source.csv target.csv --target-label y", "--target-label needs --label"),
        ("compare source.csv target.csv --label y", "there is no column 'y'"),
        ("compare source.csv target.csv -o no/r.html", "there is no folder no"),
        ("transform source.csv source.csv -o moved.csv", "source.csv is not a readable rfadapt model"),
        ("transform nothing.rfa source.csv -o moved.csv", "There is no model file at nothing.rfa"),
        ("demo -o no/demo.html", "there is no folder no"),
    ],
)
def test_mistakes_are_explained_in_one_line(folder, capsys, line, message):
    (folder / "narrow.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "renamed.csv").write_text("a,b,z\n1,2,3\n3,4,5\n")
    (folder / "words.csv").write_text("a,b,c\n1,two,3\n")
    (folder / "holes.csv").write_text("a,b,c\n1,2,3\n1,,3\n")
    assert message in fails(line, capsys, folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("transform model.rfa narrow.csv -o moved.csv", "X has 2 features, but AffineTransport is expecting 3"),
        ("transform model.rfa source.csv -o moved.txt", "must end in .csv"),
        ("transform model.rfa source.csv -o no/moved.csv", "there is no folder no"),
        ("transform model.rfa long.csv -o moved.csv", "row 40, column 'b' is missing"),
        ("transform emd.rfa source.csv --inverse -o moved.csv", "EMDTransport, which has no inverse"),
    ],
)
def test_mistakes_with_a_model(folder, capsys, monkeypatch, line, message):
    fit_affine()
    assert run("fit source.csv target.csv --transport emd -o emd.rfa") == 0
    (folder / "narrow.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "long.csv").write_text("a,b,c\n" + "1,2,3\n" * 40 + "1,,3\n")
    capsys.readouterr()
    # Mistakes in later chunks leave nothing behind either.
    monkeypatch.setattr(_formats, "CHUNK_BYTES", 30 * 3 * 8)
    assert message in fails(line, capsys, folder)


def test_traceback_on_request(folder):
    with pytest.raises(FileNotFoundError):
        run("fit nothing.csv target.csv -o m --traceback")


def test_a_warning_is_one_line_and_is_not_repeated_for_every_chunk(folder, capsys, monkeypatch):
    fit_affine()
    np.save("rows.npy", np.zeros((20, 3)))
    monkeypatch.setattr(_formats, "CHUNK_BYTES", 5 * 3 * 8)
    assert run("transform model.rfa rows.npy -o moved.npy") == 0
    err = capsys.readouterr().err
    assert err.startswith("rfadapt: warning: X does not have valid feature names") and err.count("\n") == 1


def test_version_and_help(capsys):
    from rfadapt import __version__

    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0 and capsys.readouterr().out == f"rfadapt {__version__}\n"
    for command in ("", "demo", "compare", "fit", "transform"):
        with pytest.raises(SystemExit) as stop:
            run(f"{command} --help")
        assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        run("explode")
    assert stop.value.code == 2


def test_help_does_not_load_what_only_commands_need():
    code = (
        "import sys, json\nfrom rfadapt.cli import _parser\n_parser().format_help()\n"
        "print(json.dumps([name for name in ('matplotlib', 'ot', 'rfadapt.demo') if name in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []


def test_demo(tmp_path, monkeypatch, capsys):
    """The whole demo, with a flow that hardly trains: it turns its affine start, and that is what wins."""
    monkeypatch.chdir(tmp_path)
    assert run("demo --max-iter 30") == 0
    html = (tmp_path / "rfadapt-demo.html").read_text()
    assert html.count("<table") == 4 and html.count("<img") == 12
    out = capsys.readouterr().out
    rows = ["no adaptation", "flow", *(set(BASELINES) - {"identity"})]
    accuracy = {name: float(re.search(rf"^{name} +([0-9.]+)", out, re.MULTILINE)[1]) for name in rows}
    assert accuracy["no adaptation"] < 0.6
    assert accuracy["flow"] > accuracy["no adaptation"] + 0.15
    assert accuracy["flow"] >= max(accuracy.values())


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two folders of small pictures."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 150)):
        (tmp_path / name).mkdir()
        for i in range(12):
            image = rng.integers(low, low + 100, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_translate_images_does_what_the_library_does(pictures, capsys):
    from rfadapt import ImageTranslator

    assert run("translate-images dark light --max-iter 5 -o moved --model model.rfa") == 0
    assert "Translated 12 images: moved" in capsys.readouterr().out
    expected = ImageTranslator.load("model.rfa").transform("dark", out="again")
    for path in expected:
        assert path.read_bytes() == (pictures / "moved" / path.name).read_bytes()
    assert run("translate-images dark light --model model.rfa --load --inverse -o back") == 0
    assert len(list((pictures / "back").iterdir())) == 12


def test_translate_images_names_a_broken_file(pictures, capsys):
    (pictures / "dark" / "3.png").write_bytes(b"")
    assert "3.png is not a readable image" in fails("translate-images dark light -o moved", capsys, pictures)
    assert "--load needs --model" in fails("translate-images dark light --load -o moved", capsys, pictures)
    assert run("translate-images dark light --max-iter 3 --skip-bad -o moved") == 0
    assert "left out 1 images, unreadable" in capsys.readouterr().err
