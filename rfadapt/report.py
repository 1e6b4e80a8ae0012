"""Reports: one HTML file that holds its text, tables and pictures, and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import numbers
from html import escape

import numpy as np

from ._persistence import atomic_path
from ._version import __version__

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #5d6a77; --line: #d9dee3; --accent: #2f6fb3; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 62rem; background: #fff; color: var(--ink);
       font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p, figcaption, .note { max-width: 44rem; }
p { margin: .6rem 0; }
.lead { font-size: 1.1rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: 1rem 0 .4rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption, figcaption, .note { text-align: left; color: var(--soft); font-size: .88rem; }
caption { padding-bottom: .5rem; font-weight: 600; color: var(--ink); }
th, td { padding: .34rem .8rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; white-space: normal; color: var(--soft); font-weight: 600;
           line-height: 1.25; border-bottom: 1.5px solid var(--soft); }
th:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 500; }
td.text { text-align: left; white-space: normal; min-width: 14rem; }
td.best { font-weight: 700; color: var(--accent); }
figure { margin: 1.4rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
.pictures { display: grid; gap: 1.4rem 1.2rem; margin: 1.2rem 0;
            grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
.pictures figure { margin: 0; }
.pictures img { width: 100%; border-radius: 3px; margin-bottom: .35rem; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
         font-size: .85rem; }
@media print { body { padding: 0; max-width: none; } h2 { break-after: avoid; }
               figure, table { break-inside: avoid; } }
"""

#: How numbers are shown in tables.
_DIGITS = "#.3g"


class Report:
    """An HTML page, built from the top down and written at the end.

    All text is escaped. Each method adds to the page and returns nothing.

    Parameters
    ----------
    title : str
        The headline.
    lead : str
        One or two sentences below it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rfadapt.report import Report
    >>> report = Report("Two samples", "How far apart they are, for <everyone>.")
    >>> report.paragraph("Not far.")
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> report.write(path)
    >>> "&lt;everyone&gt;" in path.read_text()
    True
    """

    def __init__(self, title, lead):
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']

    def heading(self, text, level=2):
        """Add a heading; `level` is 2 for a section, 3 for a part of one."""
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def paragraph(self, text):
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, frame, caption, *, lower=(), higher=(), reference=(), formats=None):
        """Add a table.

        Parameters
        ----------
        frame : DataFrame
            Its index names the rows. Missing values are shown as a dash.
        caption : str
            What the table shows.
        lower, higher : sequence of str
            Columns whose least or greatest value is emphasised.
        reference : sequence of str
            Rows that are there to compare with, and are never emphasised.
        formats : dict of str to str, optional
            Format specification of a column's numbers, such as ``{"accuracy": ".1%"}``; else three digits.
        """
        formats = formats or {}
        rivals = frame.drop(index=list(reference))
        best = {name: rivals[name].min() for name in lower} | {name: rivals[name].max() for name in higher}
        head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in ("", *frame.columns))
        rows = []
        for label, row in frame.iterrows():
            cells = []
            for name, value in row.items():
                text, kind = _cell(value, formats.get(name, _DIGITS))
                # What reads the same is equally good.
                if label not in reference and name in best and text == _cell(best[name], formats.get(name, _DIGITS))[0]:
                    kind = "best"
                cells.append(f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</td>")
            rows.append(f"<tr><th scope='row'>{escape(str(label))}</th>{''.join(cells)}</tr>")
        self._parts.append(
            f"<div class='scroll'><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def note(self, text):
        """Add small print below a table or figure."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def figure(self, draw, caption, *, n_panels=1, width=4.8, height=4.0):
        """Add a matplotlib figure.

        Parameters
        ----------
        draw : callable
            ``draw(axes)`` draws on a list of `n_panels` Axes, which lie side by side.
        caption : str
            What it shows.
        n_panels : int, default=1
        width, height : float, default=4.8, 4.0
            Of each panel, in inches.
        """
        from matplotlib.figure import Figure

        # A Figure without pyplot: no global state, and no window where there is a screen.
        figure = Figure(figsize=(width * n_panels, height), layout="constrained")
        draw(list(figure.subplots(1, n_panels, squeeze=False)[0]))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144)
        style = f"width: {96 * width * n_panels:.0f}px"
        self._parts.append(
            f'<figure><img src="{_data_uri(buffer, "png")}" style="{style}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def pictures(self, images, *, pixelated=False):
        """Add pictures side by side.

        Parameters
        ----------
        images : dict of str to ndarray of shape (height, width, 3) or (height, width)
            Pictures with values in [0, 1], clipped to it, by caption. Colour pictures are stored as JPEG.
        pixelated : bool, default=False
            Whether to show the pixels of small pictures as squares.
        """
        style = ' style="image-rendering: pixelated"' if pixelated else ""
        figures = "".join(
            f'<figure><img src="{_image_uri(image)}" alt="{escape(caption)}"{style}>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, image in images.items()
        )
        self._parts.append(f'<div class="pictures">{figures}</div>')

    def html(self) -> str:
        """The page."""
        body = "\n".join(self._parts)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
            f"<footer>Written by rfadapt {escape(__version__)}.</footer>\n</body>\n</html>\n"
        )

    def write(self, path):
        """Write the page to `path`; the file appears only when it is complete.

        Raises
        ------
        OSError
            If `path` cannot be written.
        """
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(self.html())


def add_transport(report, transport, X0, X1, domain_names) -> None:
    """Add the pictures of one fitted transport: before and after, and what only a flow has.

    Parameters
    ----------
    report : Report
    transport : BaseTransport
        Fitted from domain 0 to domain 1.
    X0, X1 : array-like of shape (n0, n_features), (n1, n_features)
        Rows to show, best not those of the fit.
    domain_names : (str, str)
    """
    import pandas as pd

    from .plotting import HistoryDisplay, TrajectoryDisplay, TransportDisplay
    from .transport import RectifiedFlowTransport

    source, target = domain_names
    report.figure(
        lambda axes: TransportDisplay.from_estimator(transport, X0, X1, domain_names=domain_names, ax=axes),
        f"Before and after the transport: {source} and {target}, in the two principal components of {target}.",
        n_panels=2,
    )
    if not isinstance(transport, RectifiedFlowTransport):
        return
    report.figure(
        lambda axes: TrajectoryDisplay.from_estimator(transport, X0, ax=axes[0]),
        f"Paths of the flow from {source} to {target}, in the two principal components of their ends.",
        width=6.0,
    )
    history = pd.DataFrame(transport.history_).set_index("round")
    history.index = ["first fit", *(f"reflow {k}" for k in history.index[1:])]
    names = {"transport_cost": "transport cost", "straightness": "straightness",
             "first_orderness": "first-orderness", "one_step_error": "one-step error",
             "energy_distance": "energy distance", "n_iter": "optimiser steps", "seconds": "seconds"}  # fmt: skip
    report.table(
        history[list(names)].rename(columns=names), "The flow, round by round", formats={"seconds": ".1f"}
    )
    report.note(
        "Transport cost is the mean squared displacement. Straightness is 0 for straight paths, which a single "
        "Euler step follows without error."
    )
    if len(history) > 1:
        report.figure(
            lambda axes: HistoryDisplay.from_estimator(transport, ax=axes),
            "Transport cost and straightness after the first fit and after each round of reflow.",
            n_panels=2,
            height=3.0,
        )


def _cell(value, form):
    """Text of a value and its kind: "text", or None for a number or nothing."""
    if value is None or (isinstance(value, numbers.Real) and np.isnan(value)):
        return "–", None
    if isinstance(value, str):
        return value, "text" if value else None
    if isinstance(value, numbers.Integral) or (value == round(value) and form == _DIGITS and abs(value) < 1e7):
        return f"{value:.0f}", None
    text = f"{value:{form}}".rstrip(".")
    # Three digits of a large number would read as 1.23e+03.
    return (f"{value:.0f}" if "e+" in text and abs(value) < 1e7 else text).replace("-", "−", 1), None


def _data_uri(buffer, kind) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _image_uri(image) -> str:
    from PIL import Image

    pixels = np.round(255 * np.clip(np.asarray(image), 0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    if pixels.ndim == 2:
        Image.fromarray(pixels).save(buffer, "PNG")
        return _data_uri(buffer, "png")
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return _data_uri(buffer, "jpeg")
