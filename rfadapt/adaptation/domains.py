"""From what `fit` is given to two domains: rows and labels of the source, rows and known labels of the target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d, validate_data

from ..masked_labels import check_no_unseen, is_masked, is_minus_one, is_missing

#: What a table of floats is validated to.
FLOATS = [np.float64, np.float32]


@dataclass(frozen=True)
class Domains:
    """Two domains; `y0` and `y1` are None where no labels were given."""

    X0: np.ndarray
    y0: np.ndarray | None
    X1: np.ndarray
    y1: np.ndarray | None
    known1: np.ndarray  # which labels in y1 are known
    domain0: np.ndarray  # numbers of the sources that the rows of X0 are from

    @property
    def labels1(self):
        """Labels of the target, masked where they are not known; None if none is."""
        return self.y1 if self.known1.any() else None

    def of_source(self, rows):
        """The same with some of the source's rows."""
        y0 = None if self.y0 is None else self.y0[rows]
        return replace(self, X0=self.X0[rows], y0=y0, domain0=self.domain0[rows])


def split_domains(estimator, X, y, X_target, y_target, sample_domain, *, labels):
    """Validate the arguments of `fit` and part them into source and target.

    Parameters
    ----------
    estimator : BaseEstimator
        Is told its number and names of features.
    labels : {"classes", "numbers", None}
        What `y` holds; None if it is not looked at.
    """
    name = type(estimator).__name__
    if X_target is not None and sample_domain is not None:
        raise ValueError(
            f"{name}.fit takes the target either as X_target, or as rows of X that sample_domain marks; got both."
        )
    if X_target is None and sample_domain is None:
        raise ValueError(
            f"{name}.fit needs rows of the target: fit(X, y, X_target=...) with the target's rows, or "
            "fit(X, y, sample_domain=...) with both domains stacked in X; got neither."
        )
    if y_target is not None and X_target is None:
        raise ValueError("y_target labels the rows of X_target; with sample_domain, all labels are in y.")
    if y is None and labels is not None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    X = validate_data(estimator, X, dtype=FLOATS)
    if labels is not None:
        y = labels_of(y, len(X), "y")
    if sample_domain is None:
        X1 = _target_rows(estimator, X, X_target)
        y1 = None if y_target is None or labels is None else labels_of(y_target, len(X1), "y_target")
        return _checked(X, y, X1, y1, np.zeros(len(X), dtype=int), labels, y_name="y_target")
    domain = domain_numbers(sample_domain, len(X))
    is_source = domain >= 0
    _need_both(is_source)
    y0, y1 = (None, None) if labels is None else (y[is_source], y[~is_source])
    return _checked(X[is_source], y0, X[~is_source], y1, domain[is_source], labels, y_name="y")


def _target_rows(estimator, X, X_target):
    shape = tuple(X_target.shape) if hasattr(X_target, "shape") else np.asarray(X_target).shape
    if shape and shape[0] == 0:
        raise ValueError(f"X_target has no rows: shape {shape}. Give the rows of the target that are to be reached.")
    if len(shape) == 2 and shape[1] != X.shape[1]:
        raise ValueError(f"X_target must have shape (n_samples, {X.shape[1]}) like X; got {shape}.")
    try:
        return validate_data(estimator, X_target, reset=False, dtype=FLOATS)
    except ValueError as error:
        raise ValueError(f"X_target does not go with X. {error}") from error


def domain_numbers(sample_domain, n_samples) -> np.ndarray:
    """The domain of each row: 0 or positive for a source, negative for the target; all of the target by default."""
    if sample_domain is None:
        return np.full(n_samples, -1)
    domain = np.asarray(sample_domain)
    if domain.shape != (n_samples,):
        raise ValueError(f"sample_domain must have shape ({n_samples},), one number a row of X; got {domain.shape}.")
    if domain.dtype.kind not in "iuf" or not np.array_equal(domain, np.trunc(domain)):
        raise ValueError(
            "sample_domain must be whole numbers, 0 or positive for the source and negative for the target; got "
            f"{domain.dtype}, {domain[:3].tolist()}..."
        )
    return domain.astype(int)


def _need_both(is_source):
    if is_source.any() and not is_source.all():
        return
    missing = "target (negative)" if is_source.any() else "source (0 or positive)"
    raise ValueError(
        f"sample_domain marks no row of the {missing} among {len(is_source)} rows. Both domains must be among the rows "
        "of X; in cross-validation, in every training part."
    )


def labels_of(y, n_samples, name) -> np.ndarray:
    """Labels of shape (n_samples,), masked ones as they came."""
    y = column_or_1d(y, warn=True, dtype=None)
    if len(y) != n_samples:
        raise ValueError(f"{name} must have shape ({n_samples},), one label a row; got {y.shape}.")
    return y


def _checked(X0, y0, X1, y1, domain0, labels, y_name):
    known1 = np.zeros(len(X1), dtype=bool)
    if labels is None:
        return Domains(X0, None, X1, None, known1, domain0)
    if labels == "numbers":
        y0 = check_array(y0, ensure_2d=False, dtype=np.float64, input_name="y")
        if y1 is not None:
            y1 = np.asarray(y1, dtype=np.float64)
            known1 = ~np.isnan(y1)
            assert_all_finite(y1[known1], input_name=y_name)
        return Domains(X0, y0, X1, y1, known1, domain0)
    y0, classes = _check_classes(y0)
    if y1 is not None:
        known1 = _known_classes(y1, classes, y_name)
    return Domains(X0, y0, X1, y1, known1, domain0)


def _check_classes(y0):
    if y0.dtype.kind != "O":
        assert_all_finite(y0, input_name="y")
    elif missing := int(is_missing(y0).sum()):
        raise ValueError(f"Every row of the source needs a label; {missing} of the labels in y are missing.")
    else:
        y0 = np.array(y0.tolist())  # of one type, as they would be without the masked ones
    check_classification_targets(y0)
    classes = np.unique(y0)
    if len(classes) < 2:
        raise ValueError(f"The source needs rows of at least 2 classes; got 1 class: {classes.tolist()[0]!r}.")
    return y0, classes


def _known_classes(y1, classes, y_name):
    """Which labels of the target are known."""
    known = ~is_masked(y1)
    minus_one = is_minus_one(y1)
    if minus_one.any() and is_minus_one(classes).any():
        raise ValueError(
            f"-1 is a class of the source and also the mark of an unknown label, so that {minus_one.sum()} labels in "
            f"{y_name} may mean either. Name the classes otherwise, for example with LabelEncoder."
        )
    check_no_unseen(np.unique(y1[known]), classes, y_name, "the source")
    return known
