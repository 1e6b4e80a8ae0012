"""What the documentation shows works, what it links to is there, and what it lists is complete."""

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
from pathlib import Path

import pytest

import rfadapt
from rfadapt import (
    AdaptedClassifier,
    ImageTranslator,
    RectifiedFlowTransport,
    adaptation,
    cli,
    compare_transports,
    datasets,
    model_selection,
    plotting,
)
from rfadapt.compare import SHORT_NAMES
from rfadapt.solvers import SOLVERS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
MODULES = sorted(module.name for module in pkgutil.walk_packages(rfadapt.__path__, "rfadapt."))


def name_of(page):
    return page.name


def prose(page):
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page):
    """The blocks that are run, as (line number, language, text)."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield text[: match.start()].count("\n") + 2, *match.groups()


def run_page(page):
    """Run the page's blocks from the top down in one namespace, as a reader would; returns the namespace."""
    namespace = {"__name__": "page"}
    for line, language, text in blocks(page):
        if language == "python":
            # As many empty lines first as make the line numbers of an error those of the page.
            exec(compile("\n" * (line - 1) + text, page.name, "exec"), namespace)
        else:
            run_commands(page, text)
    return namespace


def run_commands(page, text):
    for command in text.splitlines():
        program, *arguments = shlex.split(command, comments=True)
        assert program == "rfadapt", f"{page.name}: only rfadapt is run here; mark other commands ```console"
        if arguments[0] != "demo":  # it takes minutes, and has a test of its own
            assert cli.main(arguments) == 0, f"{page.name}: {command}"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, and no window for the pictures."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    pyplot.close("all")


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=name_of)
def test_code_blocks_run(page, elsewhere, capsys):
    namespace = run_page(page)
    if page.name == "README.md":
        assert namespace["after"] > namespace["before"] + 0.15
        affine, flow = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:])
        assert flow < 0.4 * affine


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, elsewhere):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.is_file(), f"{page.name}: there is no {target}"
        assert not anchor or anchor in headings(linked), f"{page.name}: there is no heading {target}"


def headings(page):
    """The anchors that a renderer makes of a page's headings."""
    lines = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_page_is_linked_from_the_index_and_the_readme():
    readme, index = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md"))
    for page in PAGES:
        if page.name not in ("README.md", "index.md"):
            assert f"]({page.name})" in index and f"](docs/{page.name})" in readme


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_the_package_exist(page):
    for name in set(re.findall(r"`(rfadapt(?:\.\w+)+)", prose(page))):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), f"{page.name}: there is no {name}"


def columns():
    """The columns of a comparison."""
    labels = {"y0": [0, 1] * 4, "y1": [0, 1] * 4}
    return list(compare_transports(["identity"], [[0.0]] * 8, [[1.0]] * 8, **labels).columns)


def options():
    """The options of the command line."""
    return set(re.findall(r'"(--[a-z-]+)"', inspect.getsource(cli)))


def loaders():
    """The functions of rfadapt.datasets."""
    functions = dict(inspect.getmembers(datasets, inspect.isfunction))
    return [name for name in functions if name[0] != "_" and functions[name].__module__ == datasets.__name__]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("index.md", lambda: {*rfadapt.__all__} - {"__version__"}),
        ("index.md", loaders),
        ("guide.md", lambda: RectifiedFlowTransport().get_params()),
        ("guide.md", lambda: SOLVERS),
        ("transports.md", lambda: [*SHORT_NAMES, *(kind.__name__ for kind in SHORT_NAMES.values())]),
        ("adaptation.md", lambda: AdaptedClassifier(None).get_params(deep=False)),
        ("adaptation.md", lambda: adaptation.__all__),
        ("adaptation.md", lambda: model_selection.__all__),
        ("images.md", lambda: ImageTranslator().get_params()),
        ("comparing.md", columns),
        ("comparing.md", lambda: plotting.__all__),
        ("command_line.md", options),
        ("command_line.md", lambda: [".csv", ".parquet", ".npy", ".npz"]),
    ],
)
def test_nothing_is_left_out(page, names):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    missing = [name for name in names() if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    assert not missing, f"docs/{page} says nothing about {missing}"


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("translate_images", "translate_digits.png"),
        ("translate_latent", "translate_latent.png"),
        ("transfer_colours", "colours_photographs.jpg"),
    ],
)
def test_the_gallery_runs(name, picture, elsewhere, monkeypatch):
    script = ROOT / "docs" / "gallery" / f"{name}.py"
    monkeypatch.setattr("sys.argv", [str(script), "--max-iter", "3"])
    monkeypatch.syspath_prepend(script.parent)  # as where a script is run by itself
    runpy.run_path(str(script), run_name="__main__")
    assert (elsewhere / picture).stat().st_size > 1000
