"""There and back: a model that is trained on what the first one predicted must find the source's labels again."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metadata_routing import get_routing_for_object

from ._scorer import DomainScorer, predicts_classes, rows_of, takes_domain


class CircularValidationScorer(DomainScorer):
    """Balanced accuracy (or R²) on the source of a model trained the other way round [1]_.

    The target's rows get the labels that the model predicts. A clone of it is then fitted with the domains exchanged,
    from the target with these labels to the source without any, and predicts the source. An adaptation that lost the
    classes does not find them again. One that confuses them consistently does: a high value is necessary, not
    sufficient.

    A model that takes `sample_domain` in `fit`, itself or in a step of a Pipeline, gets all rows with the domains
    exchanged; any other is fitted on the target's rows.

    References
    ----------
    .. [1] Bruzzone, Marconcini, "Domain adaptation problems: a DASVM classification technique and a circular validation
       strategy", IEEE TPAMI 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from rfadapt.model_selection import CircularValidationScorer
    >>> X = np.arange(8.0)[:, None]
    >>> y = np.array([0, 0, 1, 1, -1, -1, -1, -1])
    >>> model = KNeighborsClassifier(1).fit(X[:4], y[:4])       # predicts 1 for all of the target: one class is lost
    >>> CircularValidationScorer()(model, X, y)
    0.5
    """

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        self._need_source(y, is_source)
        guessed = np.asarray(estimator.predict(rows_of(X, ~is_source)))
        truth = np.array(y[is_source].tolist())
        if not predicts_classes(estimator):
            return r2_score(truth, _fitted_backwards(estimator, X, guessed, is_source, np.nan))
        encoder = LabelEncoder().fit(guessed)
        if len(encoder.classes_) == 1:
            found = np.full(len(truth), guessed[0])  # nothing to train on, and only one answer
        else:
            codes = _fitted_backwards(estimator, X, encoder.transform(guessed), is_source, -1)
            found = encoder.inverse_transform(codes)
        # Balanced accuracy: scikit-learn's warns where a class is predicted that the source does not have.
        return np.mean([np.mean(found[truth == label] == label) for label in np.unique(truth)])


def _fitted_backwards(estimator, X, guessed, is_source, mask):
    """What a clone, fitted with the domains exchanged, predicts for the rows of the source."""
    model = clone(estimator)
    names = _domain_parameters(model)
    if not names:
        return model.fit(rows_of(X, ~is_source), guessed).predict(rows_of(X, is_source))
    y = np.full(len(is_source), mask, dtype=np.result_type(guessed.dtype, type(mask)))
    y[~is_source] = guessed
    domain = np.where(is_source, -1, 1)
    return model.fit(X, y, **dict.fromkeys(names, domain)).predict(rows_of(X, is_source))


def _domain_parameters(model) -> list:
    """Under which names `fit` takes the domains."""
    if sklearn.get_config()["enable_metadata_routing"]:
        return list(get_routing_for_object(model).consumes("fit", ["sample_domain"]))
    if not isinstance(model, Pipeline):
        return ["sample_domain"] if takes_domain(model.fit) else []
    return [f"{name}__sample_domain" for name, step in model.steps if hasattr(step, "fit") and takes_domain(step.fit)]
