"""The main job on data that ships with scikit-learn: `rfadapt demo`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.base import clone
from sklearn.svm import SVC
from sklearn.utils import check_random_state

from . import metrics
from ._random import seeded
from .baselines import BASELINES
from .datasets import load_drifted_digits, load_photograph_colours
from .report import Report, add_transport
from .transport import RectifiedFlowTransport

# Pixels of each photograph that the colour transports are fitted on, and as many to measure them.
_PIXELS = 4000
# Every second pixel of the photographs is shown.
_STRIDE = 2
# Colours, three numbers each, need fewer steps than the default; a second round shows what reflow does.
_COLOUR_SETTINGS = {"n_reflow": 1, "max_iter": 1500}
_DIGITS_SHOWN = 16
_DESCRIPTIONS = {
    "identity": "the drifted digits as they are",
    "flow": "rectified flow",
    "coral": "matches means and covariances",
    "affine": "optimal map between Gaussians",
    "emd": "exact optimal transport of the training rows",
    "sinkhorn": "entropic optimal transport",
    "unbalanced": "entropic, may leave outliers behind",
    "class-sinkhorn": "entropic, by classes; the other way round, with the classifier refitted",
    "kernel": "optimal transport and a kernel regression, in turns",
}


def run_demo(*, max_iter=None, random_state=0, progress: Callable[[str], None] = print):
    """Carry drifted digits back to a fixed classifier, and the colours of one photograph to another.

    Parameters
    ----------
    max_iter : int, optional
        Optimiser steps of the flow per round; its default otherwise.
    random_state : int, default=0
        Seeds the splits and the transports.
    progress : callable, default=print
        Called with a line of text now and then.

    Returns
    -------
    report : Report
        Not yet written.
    digits, colours : DataFrame
        The two tables of the report.
    """
    report = Report(
        "rfadapt: two unpaired samples, one map",
        "A transport learns to move samples of one domain onto another without knowing which row belongs to "
        "which. Here it repairs a drifted sensor for a classifier that stays as it is, and gives one photograph "
        "the colours of another. All data ship with scikit-learn.",
    )
    settings = {"scaling": "common", "random_state": random_state}
    chosen = {} if max_iter is None else {"max_iter": max_iter}
    digits_flow = RectifiedFlowTransport(**settings, **chosen)
    colour_flow = RectifiedFlowTransport(**settings, **{**_COLOUR_SETTINGS, **chosen})
    digits = _digits(report, digits_flow, random_state, progress)
    colours = _colours(report, colour_flow, random_state, progress)
    return report, digits, colours


def _digits(report, flow, random_state, progress):
    import pandas as pd

    data = load_drifted_digits(random_state=random_state)
    twins = load_drifted_digits(blur=0, gain=1, offset=0, rotation=0, random_state=random_state)
    classifier = SVC().fit(data.X0, data.y0)
    # The drifted digits are moved to the classifier: half of them, without labels, to learn the map, the
    # other half, which no transport has seen, to score it.
    order = check_random_state(random_state).permutation(len(data.X1))
    learn, test = np.split(order, [len(order) // 2])
    X_drifted, X_test, y_test = data.X1[learn], data.X1[test], data.y1[test]

    transports = {"flow": flow}
    transports |= {name: seeded(kind(), random_state) for name, kind in BASELINES.items()}
    by_class = transports.pop("class-sinkhorn")
    rows, moved = {}, {}
    for name, transport in transports.items():
        progress(f"digits: {name}")
        seconds = _fit_seconds(transport, X_drifted, data.X0)
        moved[name] = transport.transform(X_test)
        rows[name] = {
            "accuracy": classifier.score(moved[name], y_test),
            "energy distance": metrics.energy_distance(moved[name], data.X0),
            "fit seconds": seconds,
        }
    progress("digits: class-sinkhorn")
    seconds = _fit_seconds(by_class, data.X0, X_drifted, y0=data.y0)
    refitted = clone(classifier).fit(by_class.transform(data.X0), data.y0)
    rows["class-sinkhorn"] = {"accuracy": refitted.score(X_test, y_test), "fit seconds": seconds}
    order = ["identity", "flow", *(name for name in rows if name not in ("identity", "flow"))]
    table = pd.DataFrame(rows).T.loc[order].rename(index={"identity": "no adaptation"})

    report.heading("Handwritten digits through a drifted sensor")
    report.paragraph(
        f"A support vector classifier was trained on {len(data.X0)} clean digits; on other clean digits "
        f"{classifier.score(twins.X1[test], y_test):.1%} of its answers are right. Then the sensor drifts: it is "
        "turned by 15 degrees, out of focus, has lost 30% of its sensitivity and gained a dark level. The "
        "classifier is not touched. Instead a map is learned that carries drifted digits back among the clean "
        f"ones, from {len(learn)} drifted digits without labels. It is scored on {len(test)} others."
    )
    report.table(
        table.assign(**{"": [_DESCRIPTIONS[name] for name in order]}),
        "The classifier on drifted digits that no transport has seen",
        higher=["accuracy"],
        formats={"accuracy": ".1%", "fit seconds": ".1f"},
    )
    report.note(
        "Every transport has its default parameters; the flow measures distance in common units, as pixels have "
        "them. Energy distance is from the moved digits to the clean ones. The class-regularised transport needs "
        "the labels of the side that it moves, which are unknown for drifted digits. So it moves the clean "
        "digits among the drifted ones instead, and the classifier is fitted anew."
    )
    shown = np.arange(min(_DIGITS_SHOWN, len(test)))
    strips = {
        "drifted": X_test[shown],
        "moved, affine": moved["affine"][shown],
        "moved, flow": moved["flow"][shown],
        "before the drift": twins.X1[test][shown],
    }
    report.figure(
        lambda axes: _draw_digits(axes[0], strips),
        "Digits that no transport has seen. Nothing told the transports what they looked like before the drift.",
        width=9.6,
        height=2.1,
    )
    add_transport(report, flow, X_test, data.X0, ("drifted digits", "clean digits"))
    return table


def _colours(report, flow, random_state, progress):
    import pandas as pd

    data = load_photograph_colours()
    rng = check_random_state(random_state)
    learn0, test0 = np.split(rng.choice(len(data.X0), 2 * _PIXELS, replace=False), 2)
    learn1, test1 = np.split(rng.choice(len(data.X1), 2 * _PIXELS, replace=False), 2)
    image0, image1 = (image[::_STRIDE, ::_STRIDE] for image in (data.image0, data.image1))
    affine = BASELINES["affine"]()
    floor = metrics.energy_distance(data.X1[learn1], data.X1[test1])
    rows, pictures, back = {}, {}, {}
    for name, transport in {"identity": BASELINES["identity"](), "affine": affine, "flow": flow}.items():
        progress(f"colours: {name}")
        seconds = _fit_seconds(transport, data.X0[learn0], data.X1[learn1])
        moved = transport.transform(data.X0[test0])
        rows[name] = {
            "energy distance": metrics.energy_distance(moved, data.X1[test1]),
            "noise floor": floor,
            "outside [0, 1]": np.mean(np.any((moved < 0) | (moved > 1), axis=1)),
            "transport cost": metrics.transport_cost(data.X0[test0], moved),
            "fit seconds": seconds,
        }
        pictures[name] = transport.transform(image0.reshape(-1, 3)).reshape(image0.shape)
        back[name] = transport.inverse_transform(image1.reshape(-1, 3)).reshape(image1.shape)
    table = pd.DataFrame(rows).T

    report.heading("The colours of one photograph in another")
    report.paragraph(
        "Each pixel is a sample of three numbers, and each photograph a domain. The transports learn from "
        f"{_PIXELS} pixels of either to move the colours of the temple onto those of the flower, and are applied "
        "to every pixel. The same maps backwards give the flower the colours of the temple."
    )
    report.pictures(
        {
            "The temple (domain 0)": image0,
            "The flower (domain 1)": image1,
            "The temple in the flower's colours: affine map": pictures["affine"],
            "The temple in the flower's colours: flow": pictures["flow"],
            "The flower in the temple's colours: affine map, backwards": back["affine"],
            "The flower in the temple's colours: flow, backwards": back["flow"],
        }
    )
    report.table(
        table,
        f"Moved colours against the flower's, over {_PIXELS} other pixels of each photograph",
        lower=["energy distance"],
        formats={"outside [0, 1]": ".1%", "fit seconds": ".1f"},
    )
    report.note(
        "The noise floor is the energy distance between two samples of the flower's own pixels. "
        "Colours outside [0, 1] are clipped in the pictures."
    )
    add_transport(report, flow, data.X0[test0], data.X1[test1], ("temple pixels", "flower pixels"))
    return table


def _fit_seconds(transport, *samples, **labels):
    start = time.perf_counter()
    transport.fit(*samples, **labels)
    return time.perf_counter() - start


def _draw_digits(axis, strips):
    """Rows of digits with their names, one pixel apart."""
    lines = []
    for digits in strips.values():
        images = np.clip(digits.reshape(-1, 8, 8), 0, 16)
        lines.append(np.pad(images, ((0, 0), (1, 0), (1, 0)), constant_values=np.nan).transpose(1, 0, 2))
    lines = np.concatenate([line.reshape(9, -1) for line in lines])
    axis.imshow(lines, cmap="gray_r", vmin=0, vmax=16, aspect="equal")
    axis.set_xticks([])
    axis.set_yticks(4.5 + 9 * np.arange(len(strips)), list(strips))
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
