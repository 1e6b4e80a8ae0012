import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rfadapt import RectifiedFlowTransport
from rfadapt.baselines import AffineTransport
from rfadapt.report import Report, add_transport

NASTY = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text."""

    VOID = ("meta", "img")

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data.strip())

    def sources(self):
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]


def decoded(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))


def test_user_text_is_escaped_everywhere():
    report = Report(NASTY, NASTY)
    report.heading(NASTY)
    report.paragraph(NASTY)
    report.note(NASTY)
    report.table(pd.DataFrame({NASTY: [NASTY]}, index=[NASTY]), NASTY)
    report.figure(lambda axes: axes[0].plot([0, 1]), NASTY)
    report.pictures({NASTY: np.zeros((2, 2, 3))})
    page = Page(report.html())
    assert not page.open
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) == 2 + 1 + 3 + 4 + 1 + 1  # with the title of the window
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [NASTY, NASTY]


def test_page_loads_nothing():
    report = Report("a", "b")
    report.figure(lambda axes: axes[0].plot([0, 1]), "c")
    report.pictures({"d": np.zeros((2, 2, 3)), "e": np.zeros((2, 2))}, pixelated=True)
    page = Page(report.html())
    assert not {"script", "link", "iframe", "object", "a"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/") for source in page.sources()) and len(page.sources()) == 3
    assert "http" not in report.html() and "url(" not in report.html() and "@import" not in report.html()


def test_pictures_are_the_arrays():
    ramp = np.linspace(-0.5, 1.5, 16 * 16).reshape(16, 16)
    colour = np.zeros((16, 16, 3))
    colour[:, :, 2] = 1
    report = Report("a", "b")
    report.pictures({"grey": ramp, "blue": colour})
    grey, blue = map(decoded, Page(report.html()).sources())
    np.testing.assert_array_equal(np.asarray(grey), np.round(255 * np.clip(ramp, 0, 1)))
    np.testing.assert_allclose(np.asarray(blue).reshape(-1, 3).mean(axis=0), [0, 0, 255], atol=3)


def test_figure_uses_no_global_state():
    from matplotlib import pyplot as plt

    report = Report("a", "b")
    report.figure(lambda axes: [axis.plot([0, 1]) for axis in axes], "c", n_panels=3, height=2)
    assert not plt.get_fignums()
    width, height = decoded(*Page(report.html()).sources()).size
    assert abs(width - 3 * 4.8 * 144) < 1 and height == 2 * 144


def test_table_numbers_and_emphasis():
    frame = pd.DataFrame(
        {"loss": [0.1, 0.10049, 2.0, np.nan], "share": [0.5, 0.25, 0.75, None], "n": [1, 2, 30_000, 4],
         "error": [None, None, None, "ValueError: x"]},
        index=["a", "b", "c", "d"],
    )  # fmt: skip
    report = Report("t", "l")
    report.table(frame, "caption", lower=["loss"], higher=["share"], formats={"share": ".1%"})
    html = report.html()
    cells = [re.findall(r"<td([^>]*)>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)][1:]
    assert [[text for _, text in row] for row in cells] == [
        ["0.100", "50.0%", "1", "–"],
        ["0.100", "25.0%", "2", "–"],
        ["2", "75.0%", "30000", "–"],
        ["–", "–", "4", "ValueError: x"],
    ]
    best = [[text for kind, text in row if "best" in kind] for row in cells]
    assert best == [["0.100"], ["0.100"], ["75.0%"], []]


def test_reference_rows_are_not_emphasised():
    report = Report("t", "l")
    report.table(pd.DataFrame({"loss": [2.0, 1.0]}, index=["a", "floor"]), "c", lower=["loss"], reference=["floor"])
    assert re.findall(r"<td([^>]*)>", report.html()) == [' class="best"', ""]


def test_write_is_atomic(tmp_path):
    report = Report("Grüße", "→")
    path = tmp_path / "report.html"
    report.write(path)
    assert path.read_text(encoding="utf-8") == report.html()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileNotFoundError, match="no folder"):
        report.write(tmp_path / "no" / "report.html")


@pytest.mark.parametrize(
    ("transport", "n_figures", "rounds"),
    [
        (AffineTransport(), 1, []),
        (RectifiedFlowTransport(max_iter=10, random_state=0), 2, ["first fit"]),
        (RectifiedFlowTransport(n_reflow=1, max_iter=10, random_state=0), 3, ["first fit", "reflow 1"]),
    ],
    ids=["affine", "flow", "reflow"],
)
def test_pictures_of_a_transport(transport, n_figures, rounds):
    X0, X1 = np.random.default_rng(0).normal(size=(2, 50, 3))
    report = Report("a", "b")
    add_transport(report, transport.fit(X0, X1), X0, X1, ("here & now", "there"))
    assert len(Page(report.html()).sources()) == n_figures
    assert "here &amp; now" in report.html()
    assert re.findall(r"<th scope='row'>([^<]*)</th>", report.html()) == rounds
