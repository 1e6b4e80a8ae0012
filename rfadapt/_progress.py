"""The progress bar of a round of training."""

from __future__ import annotations


class progress_bar:
    """Context manager: a function (steps, loss) that moves a tqdm bar, or does nothing."""

    def __init__(self, verbose, total, title):
        self.verbose, self.total, self.title = verbose, total, title
        self.bar = None

    def __enter__(self):
        if self.verbose:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.total, desc=self.title, unit="step")
        return self._advance

    def _advance(self, steps, loss):
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self.bar.update(steps)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()
