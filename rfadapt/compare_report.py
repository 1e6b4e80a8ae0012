"""The report of `rfadapt compare`: many transports between the same two samples."""

from __future__ import annotations

from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from ._validation import check_two_samples
from .compare import compare_transports
from .report import Report, add_transport

_LOWER = ("energy_distance", "sliced_wasserstein", "domain_auc")
_SETUP = ("fit_seconds", "transform_seconds", "peak_memory_mb", "error")


def report_comparison(transports, X0, X1, *, y0=None, y1=None, names, standardise=True, random_state=None):
    """Compare transports and write down the result.

    Parameters
    ----------
    transports : dict of str to BaseTransport
        Unfitted transports by name.
    X0, X1 : array-like of shape (n0, n_features), (n1, n_features)
        Samples of the source and the target domain.
    y0, y1 : array-like of shape (n0,), (n1,), optional
        Labels; with both, accuracy is reported.
    names : (str, str)
        What to call the two domains.
    standardise : bool, default=True
        Whether to bring every feature to unit standard deviation over both samples first, so that distances
        mean something where features have different units.
    random_state : int, RandomState instance or None, default=None
        As in `compare_transports`.

    Returns
    -------
    report : Report
        Not yet written.
    table : DataFrame
        As `compare_transports` returns it.
    """
    X0, X1 = (samples.numpy() for samples in check_two_samples(X0, X1)[:2])
    if standardise:
        scaler = StandardScaler().partial_fit(X0).partial_fit(X1)
        X0, X1 = scaler.transform(X0), scaler.transform(X1)
    table = compare_transports(transports, X0, X1, y0=y0, y1=y1, random_state=random_state)

    units = "features brought to unit standard deviation over both" if standardise else "in the data's own units"
    report = Report(
        f"From {names[0]} to {names[1]}",
        f"{len(X0)} rows are moved onto {len(X1)} rows of {X0.shape[1]} features, {units}. "
        "Every transport was fitted on the same part of the rows and measured on the others.",
    )
    report.heading("Where the rows arrive")
    where = table.drop(columns=list(_SETUP))
    report.table(
        where.rename(columns=_spaced),
        "Moved rows of the source against rows of the target, over rows that no transport has seen",
        lower=[_spaced(name) for name in _LOWER],
        higher=["accuracy"] if "accuracy" in where else [],
        formats={"accuracy": ".1%"},
    )
    report.note(
        "A floor is what a perfect transport would get: the same distance between two samples of the target. "
        "Domain AUC is how well a classifier tells moved rows from the target's (0.5: not at all). Transport "
        "cost is the mean squared distance moved. Round trip and one-step error (a single Euler step instead of "
        "the solver's) are relative to the spread of the data; straightness is 0 for straight paths."
        + (" Accuracy: a classifier trained on moved source rows, scored on the target." * ("accuracy" in where))
    )
    report.heading("What it takes")
    report.table(
        table[list(_SETUP)].rename(columns=_spaced),
        "Time and memory",
        formats={"fit seconds": ".2f", "transform seconds": ".3f", "peak memory mb": ".0f"},
    )
    name = "flow" if "flow" in transports else str(table["energy_distance"].idxmin(skipna=True))
    if not isinstance(table.loc[name, "error"], str):
        report.heading(f"Pictures of {name}, fitted on all rows")
        transport = clone(transports[name]).fit(X0, X1, y0=y0)
        add_transport(report, transport, X0, X1, names)
    return report, table


def _spaced(name) -> str:
    return name.replace("_", " ")
