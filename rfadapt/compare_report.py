"""The report of `rfadapt compare`: many transports between the same two samples."""

from __future__ import annotations

from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from ._validation import check_two_samples
from .compare import compare_transports
from .report import Report, add_transport

# Columns of the two tables, and their headings.
_ARRIVAL = {
    "accuracy": "accuracy",
    "energy_distance": "energy distance",
    "sliced_wasserstein": "sliced Wasserstein",
    "domain_auc": "domain AUC",
}
_WAY = {
    "transport_cost": "transport cost",
    "round_trip_error": "round trip error",
    "straightness": "straightness",
    "first_orderness": "first-orderness",
    "one_step_error": "one-step error",
    "fit_seconds": "fit, s",
    "transform_seconds": "transform, s",
    "peak_memory_mb": "peak memory, MB",
    "error": "what went wrong",
}
_PERFECT = "a perfect transport"


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
    arrival = table.reindex(columns=list(_ARRIVAL)).dropna(axis="columns", how="all")
    arrival.loc[_PERFECT] = {
        "energy_distance": table["energy_distance_floor"].iloc[0],
        "sliced_wasserstein": table["sliced_wasserstein_floor"].iloc[0],
        "domain_auc": 0.5,
    }
    report.table(
        arrival.rename(columns=_ARRIVAL),
        "Moved rows of the source against rows of the target, over rows that no transport has seen",
        higher=["accuracy"] if "accuracy" in arrival else [],
        lower=[_ARRIVAL[name] for name in arrival if name != "accuracy"],
        reference=[_PERFECT],
        formats={"accuracy": ".1%"},
    )
    report.note(
        "The last row is the noise floor: the same distances between two samples of the target. Domain AUC is how "
        "well a classifier tells moved rows from the target's; at 0.5 it cannot."
        + (" Accuracy is that of a classifier trained on moved source rows." if "accuracy" in arrival else "")
    )
    report.heading("How they get there")
    way = table.reindex(columns=list(_WAY)).dropna(axis="columns", how="all")
    report.table(
        way.rename(columns=_WAY),
        "Paths, time and memory",
        formats={"fit, s": ".2f", "transform, s": ".3f", "peak memory, MB": ".0f"},
    )
    report.note(
        "Transport cost is the mean squared distance moved. Round trip (there and back) and one-step error (a "
        "single step in place of the solver's) are relative to the spread of the data; straightness is 0 for "
        "straight paths, and first-orderness for those that a single step follows, straight or not."
    )
    name = "flow" if "flow" in transports else str(table["energy_distance"].idxmin(skipna=True))
    if not isinstance(table.loc[name, "error"], str):
        report.heading(f"Pictures of {name}, fitted on all rows")
        transport = clone(transports[name]).fit(X0, X1, y0=y0)
        add_transport(report, transport, X0, X1, names)
    return report, table
