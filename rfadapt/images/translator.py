"""ImageTranslator: unpaired translation of images by a flow."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._devices import resolve_device
from .._persistence import read_model, write_model
from .._random import make_generator
from .._validation import fitting
from ..paths import PATHS, Path
from ..schedules import uniform_time_grid
from ..solvers import SOLVERS, Solver
from ..velocity import UNetVelocity
from .domain import Domain, check_conditions, shared_labels
from .fitting import ImageFit
from .flow import ImageFlow
from .reading import Images, as_bytes, as_floats
from .training import make_autocast
from .writing import ArrayWriter, FolderWriter

_TRANSLATED_TOGETHER = 64


class ImageTranslator(BaseEstimator):
    r"""Learn to translate images of one domain into another from unpaired examples, as the flow of an ODE.

    Source and target images are paired by optimal transport of their *content*: features of an autoencoder that is
    trained here, without labels, to undo random styles of source images (`ContentEncoder`). A U-Net then learns the
    velocity of the pairs,

    .. math:: v = \arg\min_v \int_0^1 E \| \dot x_t - v(x_t, t \mid c) \|^2 dt,

    given the content c of the target image, as it would look in the source. The source image of a pair is bent first
    until its content lies there (`rfadapt.images.registration`), so that its edges mean what those of an image that is
    translated do: that follows v from t = 0 to t = 1, given its own content. Where source pixels vary less than the
    target's, as on black backgrounds, noise of the missing variance, scales and colours is added, since a map cannot
    make many backgrounds of one.

    Parameters
    ----------
    coupling : {"ot", "independent"}, default="ot"
        Who is paired with whom. With labels of both sides, only images of one class are paired.
    features : {"content", "pixels"} or callable, default="content"
        The space of the transport cost: content, pixels, or a module of your own, f(x) of float images x of shape
        (n, channels, height, width) between -1 and 1. Modules are moved to the device of the fit, here and in `codec`
        and `distill_features`.
    conditions : {"content"} or None, default="content"
        Whether the velocity is told the content, beside conditions that are given to `fit`. Needs
        `features="content"`.
    path : {"linear"} or Path, default="linear"
        How a pair moves in time.
    velocity : {"unet"} or callable, default="unet"
        The field: `UNetVelocity`, or a factory f(image_shape) -> nn.Module with forward(x, t), x of shape (n, channels,
        height, width) and t of shape (n,). With conditions: f(image_shape, n_conditions) and forward(x, t, condition,
        keep), see `UNetVelocity.forward`; the content comes first among them, as an image of that shape, made flat.
    loss : {"squared", "domain"}, default="squared"
        "domain" weighs errors of the velocity by the gradient of a domain classifier's features, which is trained here,
        so that what the domains do not differ by is left alone.
    codec : object or None, default=None
        encode(x) and decode(z), two functions of tensors, of a latent space in which to translate: for images that are
        too large to translate as pixels. Its weights are not trained and not saved.
    image_size : int, (height, width) or "auto", default="auto"
        What all images are resized to; "auto" is the size of the first target image. Sides must be even.
    noise : {"auto"} or None, default="auto"
        Whether source images get the noise of what they lack. `inverse_transform` takes it away again.
    augment : callable or None, default=None
        f(uint8 batch) -> batch, for example of `torchvision.transforms.v2`, applied to both domains in training.
    n_reflow : int, default=0
        Rounds of training on the pairs that the (guided) flow itself makes, which straighten the paths.
    distill : bool, default=False
        Train a student that translates in one evaluation, first on the squared distance to the flow's own pairs, then
        with a distance of features as well. Best after a reflow.
    distill_features : callable or None, default=None
        The features of that distance; None takes the content, or none.
    guidance_scale : float, default=1.0
        :math:`\alpha` of :math:`\alpha v(x, t | c) + (1 - \alpha) v(x, t)`; 1 is the conditional flow itself. Read at
        `transform`, and at reflow.
    condition_dropout : float, default=0.1
        Share of the training pairs whose condition is left out, which guidance needs.
    solver : {"euler", "midpoint", "heun", "rk4", "dopri5"} or Solver, default="midpoint"
        How the flow is followed. Read at `transform`, as is `n_steps`.
    n_steps : int, default=4
        Steps of the solver.
    width : int or "auto", default="auto"
        Channels of the U-Net at its highest resolution. "auto" is 48 on a CPU, where squares of 2 x 2 pixels are one
        place of images of 32 pixels and more (4 x 4 from 128 on), and 128 on a GPU.
    max_iter : int or "auto", default="auto"
        Optimiser steps of the flow; a reflow and the student take half as many. "auto" is 1000 on a CPU and 20000
        on a GPU.
    max_time : float or None, default=None
        Seconds of each of these rounds at most (of the content's encoder: a third). The step size then falls in time.
    batch_size : int, default=64
        Pairs of one gradient.
    accumulate : int, default=1
        Gradients that are summed for one optimiser step.
    learning_rate : float or "auto", default="auto"
        Peak step size; "auto" is the field's own, else 3e-4.
    on_bad_image : {"raise", "skip"}, default="raise"
        What to do with files that cannot be decoded; both name them.
    on_odd_size : {"resize", "raise", "skip"}, default="resize"
        What to do with files of another size than `image_size`.
    checkpoint : str, Path or None, default=None
        A file that holds the state of the fit, replaced every 50 steps and removed at the end. A fit that finds it goes
        on from there, to the same weights as one that was not interrupted (unless `max_time` ends it).
    channels_last : bool, default=True
        Memory layout of convolutions.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of convolutions and matrix products; "auto" is bfloat16 where the device has instructions for it.
    random_state : int, RandomState or None, default=None
        Same seed, same result.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    flow_ : ImageFlow
        Encoder, velocity and student.
    image_shape_ : tuple (channels, height, width)
        Of translated images.
    classes_ : ndarray or None
        Of conditions that are labels.
    history_ : list of dict
        One per stage: `stage`, `seconds`, `n_iter`, `loss`.

    References
    ----------
    Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2022.

    Liu, Zhang, Ma, Peng, Liu, "InstaFlow: One Step is Enough for High-Quality Diffusion-Based Text-to-Image
    Generation", 2023 (guided reflow and distillation).

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import ImageTranslator
    >>> rng = np.random.default_rng(0)
    >>> dark = rng.integers(0, 90, size=(40, 16, 16, 3), dtype=np.uint8)
    >>> light = rng.integers(160, 255, size=(40, 16, 16, 3), dtype=np.uint8)
    >>> translator = ImageTranslator(max_iter=10, width=8, batch_size=8, n_steps=2, random_state=0)
    >>> moved = translator.fit(dark, light).transform(dark)
    >>> moved.shape, str(moved.dtype)
    ((40, 16, 16, 3), 'uint8')
    """

    _parameter_constraints = {
        "coupling": [StrOptions({"ot", "independent"})],
        "features": [StrOptions({"content", "pixels"}), callable],
        "conditions": [StrOptions({"content"}), None],
        "path": [StrOptions(set(PATHS)), Path],
        "velocity": [StrOptions({"unet"}), callable],
        "loss": [StrOptions({"squared", "domain"})],
        "codec": [HasMethods(["encode", "decode"]), None],
        "image_size": [StrOptions({"auto"}), Interval(Integral, 8, None, closed="left"), tuple],
        "noise": [StrOptions({"auto"}), None],
        "augment": [callable, None],
        "n_reflow": [Interval(Integral, 0, None, closed="left")],
        "distill": ["boolean"],
        "distill_features": [callable, None],
        "guidance_scale": [Interval(Real, 0, None, closed="left")],
        "condition_dropout": [Interval(Real, 0, 1, closed="left")],
        "solver": [StrOptions(set(SOLVERS)), Solver],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "width": [StrOptions({"auto"}), Interval(Integral, 8, None, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "on_bad_image": [StrOptions({"raise", "skip"})],
        "on_odd_size": [StrOptions({"resize", "raise", "skip"})],
        "checkpoint": "no_validation",
        "channels_last": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        coupling="ot",
        *,
        features="content",
        conditions="content",
        path="linear",
        velocity="unet",
        loss="squared",
        codec=None,
        image_size="auto",
        noise="auto",
        augment=None,
        n_reflow=0,
        distill=False,
        distill_features=None,
        guidance_scale=1.0,
        condition_dropout=0.1,
        solver="midpoint",
        n_steps=4,
        width="auto",
        max_iter="auto",
        max_time=None,
        batch_size=64,
        accumulate=1,
        learning_rate="auto",
        on_bad_image="raise",
        on_odd_size="resize",
        checkpoint=None,
        channels_last=True,
        device="auto",
        precision="auto",
        random_state=None,
        verbose=0,
    ):
        self.coupling = coupling
        self.features = features
        self.conditions = conditions
        self.path = path
        self.velocity = velocity
        self.loss = loss
        self.codec = codec
        self.image_size = image_size
        self.noise = noise
        self.augment = augment
        self.n_reflow = n_reflow
        self.distill = distill
        self.distill_features = distill_features
        self.guidance_scale = guidance_scale
        self.condition_dropout = condition_dropout
        self.solver = solver
        self.n_steps = n_steps
        self.width = width
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.on_bad_image = on_bad_image
        self.on_odd_size = on_odd_size
        self.checkpoint = checkpoint
        self.channels_last = channels_last
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, source, target, *, y0=None, y1=None, conditions0=None, conditions1=None):
        """Learn the translation.

        Parameters
        ----------
        source, target : folder, list of paths, torchvision Dataset, ndarray or Tensor
            Images of either domain. A folder is searched with its subfolders. Files and datasets are read as they are
            needed, and are not kept in memory. Arrays have the shape (n, height, width, channels) or (n, height,
            width), tensors (n, channels, height, width), of uint8, or of floats between 0 and 1.
        y0, y1 : array-like of shape (n0,), (n1,), optional
            Labels; with both, images are paired within their class.
        conditions0, conditions1 : array-like of shape (n,) or (n, n_features), optional
            Labels or embeddings of either domain that the velocity is told. Those of the target are needed; those of
            the source only by reflow and distillation.

        Returns
        -------
        self : ImageTranslator

        Raises
        ------
        ValueError, TypeError, FileNotFoundError
            If images cannot be read, or options contradict each other. The translator is then left as it was.
        """
        self._validate_params()
        self._check_options(conditions0, conditions1)
        size = None if self.image_size == "auto" else self._asked_size()
        target = self._images(target, "target", size)
        source = self._images(source, "source", target.size)
        channels = max(source.channels, target.channels)
        if any(side % 2 for side in target.size):
            raise ValueError(f"Sides of images must be even; got {target.size}. Give image_size=(height, width).")
        source.channels = target.channels = channels
        classes = None
        if conditions1 is not None and np.ndim(conditions1) == 1:
            classes = np.unique(np.asarray(conditions1))
        labels0, labels1 = shared_labels((y0, y1), (source, target))
        domains = [
            Domain(source, labels0, check_conditions(conditions0, source, "conditions0", classes)),
            Domain(target, labels1, check_conditions(conditions1, target, "conditions1", classes)),
        ]
        with fitting(self):
            fit = ImageFit(self, domains, (channels, *target.size))
            self.flow_ = fit.run()
            self.history_, self.classes_, self.image_shape_ = fit.history, classes, (channels, *target.size)
        return self

    def transform(self, X, out=None, *, conditions=None):
        """Translate source images.

        Parameters
        ----------
        X : as `source` of `fit`
        out : str or Path, optional
            A folder to write PNG files to, as they are made. Needed for files and datasets.
        conditions : array-like, optional
            What `fit` was given of the target, for these images.

        Returns
        -------
        translated : ndarray, Tensor, or list of Path
            What `X` was, with images of the target's size; the files written, if `out` is given.
        """
        move = self._moved_in_one_step if self.distill else self._moved
        return self._map_images(move, X, out, conditions)

    def inverse_transform(self, X, out=None, *, conditions=None):
        """Translate target images back, by the same flow backwards; arguments and result as in `transform`."""
        return self._map_images(self._moved_back, X, out, conditions)

    def trajectory(self, X, n_times=5, *, conditions=None):
        """The images on their way from source to target.

        Returns
        -------
        trajectory : ndarray of shape (n_times, n, height, width, channels) and type uint8
            At evenly spaced times; the first entry is the source with the noise of what it lacks.
        """
        check_is_fitted(self)
        if not isinstance(n_times, Integral) or n_times < 2:
            raise ValueError(f"n_times must be an integer of at least 2 (start and end); got {n_times!r}.")
        images, given = self._opened(X, conditions)
        generator, parts = make_generator(self.random_state), []
        per_interval = -(-self.n_steps // (n_times - 1))
        for index in torch.arange(len(images)).split(_TRANSLATED_TOGETHER):
            x, c = self._read(images, given, index)
            start = self.flow_.start(x, generator)
            grid = uniform_time_grid(per_interval * (n_times - 1))
            states = self.flow_.states(start, c, grid, autocast=self._autocast())[::per_interval]
            parts.append(torch.stack([self._as_bytes(state) for state in states]))
        return torch.cat(parts, dim=1).movedim(2, -1).numpy()

    def save(self, path):
        """Write the fitted translator to one file, from which nothing can run code when it is loaded."""
        check_is_fitted(self)
        plain = (str, int, float, bool, type(None), list, tuple)
        params = {name: value for name, value in self.get_params(deep=False).items() if isinstance(value, plain)}
        values = {"class": type(self).__name__, "params": params, "history": self.history_}
        values |= {"image_shape": self.image_shape_, "n_conditions": self.flow_.n_conditions}
        values["classes"] = None if self.classes_ is None else self.classes_.tolist()
        write_model(path, self.flow_.state(), values)

    @classmethod
    def load(cls, path, /, **params):
        """Read a translator that `save` wrote; give parameters that are objects of your own (velocity, codec) again."""
        tensors, values = read_model(path)
        if values.get("class") != cls.__name__:
            raise ValueError(f"{path} holds a {values.get('class')}, not an {cls.__name__}.")
        translator = cls(**{**values["params"], **params})
        if isinstance(translator.image_size, list):
            translator.image_size = tuple(translator.image_size)
        translator.image_shape_, translator.history_ = tuple(values["image_shape"]), values["history"]
        translator.classes_ = None if values["classes"] is None else np.array(values["classes"])
        device = resolve_device(translator.device)
        shape, n_conditions = translator.image_shape_, values["n_conditions"]
        with torch.random.fork_rng(devices=[]):  # the first weights, which are thrown away, must cost no draws
            translator.flow_ = ImageFlow.restored(translator, shape, tensors, n_conditions, device)
        return translator

    # What the fit reads

    def planned_steps(self):
        """Optimiser steps of the flow."""
        if self.max_iter != "auto":
            return self.max_iter
        return 1000 if resolve_device(self.device).type == "cpu" else 20000

    def make_velocity(self, shape, n_conditions, generator):
        """A new field for states of this shape."""
        if self.velocity != "unet":
            module = self.velocity(shape, n_conditions) if n_conditions else self.velocity(shape)
            if not isinstance(module, nn.Module):
                raise TypeError(f"velocity must return a torch.nn.Module; got {type(module).__name__}.")
            return module
        on_cpu = resolve_device(self.device).type == "cpu"
        width = self.width if self.width != "auto" else 48 if on_cpu else 128
        side = min(shape[1:])
        patch = 1 if side < 32 or not on_cpu else 2 if side < 128 or side % 4 else 4
        map_channels = shape[0] if self.conditions == "content" else 0
        return UNetVelocity(shape, width, patch=patch, n_conditions=n_conditions, map_channels=map_channels,
                            generator=generator)  # fmt: skip

    def named_solver(self):
        """The solver that `solver` names."""
        return SOLVERS[self.solver]() if isinstance(self.solver, str) else self.solver

    def grid(self):
        """The times of the solver, from 0 to 1."""
        return uniform_time_grid(self.n_steps)

    # Inside

    def _check_options(self, conditions0, conditions1):
        if self.conditions == "content" and self.features != "content":
            raise ValueError(
                'conditions="content" needs the encoder of features="content"; got features='
                f"{self.features!r}. Give conditions=None as well."
            )
        if conditions0 is not None and conditions1 is None:
            raise ValueError("conditions0 was given without conditions1: the flow is told conditions of the target.")
        if self.augment is not None and isinstance(self.augment, type):
            raise ValueError(f"augment must be an instance; got the class {self.augment.__name__}. Add parentheses.")

    def _asked_size(self):
        size = self.image_size
        return (size, size) if isinstance(size, Integral) else tuple(int(side) for side in size)

    def _images(self, source, name, size, channels=None):
        return Images(source, name, size=size, channels=channels, on_bad_image=self.on_bad_image,
                      on_odd_size=self.on_odd_size)  # fmt: skip

    def _opened(self, X, conditions):
        channels, *size = self.image_shape_
        images = self._images(X, "X", tuple(size), channels)
        given = check_conditions(conditions, images, "conditions", self.classes_)
        expected = self.flow_.n_conditions - self.flow_.n_content
        if (0 if given is None else given.shape[1]) != expected:
            what = "none" if given is None else f"{given.shape[1]}"
            raise ValueError(f"The fit was given conditions of {expected} features; this call {what}.")
        return images, given

    def _map_images(self, move, X, out, conditions):
        check_is_fitted(self)
        self._validate_params()
        images, given = self._opened(X, conditions)
        if out is None and images.kind != "array":
            raise ValueError("Translations of files and datasets are written as they are made: give a folder, out=...")
        writer = ArrayWriter(images, self.image_shape_) if out is None else FolderWriter(images, out)
        generator = make_generator(self.random_state)
        for index in torch.arange(len(images)).split(_TRANSLATED_TOGETHER):
            writer.write(index, self._as_bytes(move(*self._read(images, given, index), generator)))
        return writer.result

    def _read(self, images, given, index):
        x = as_floats(images.batch(index), self.flow_.device)
        return x, self.flow_.condition(x, None if given is None else given[index].to(x))

    def _moved(self, x, c, generator):
        return self.flow_.solve(self.flow_.start(x, generator), c, self.grid(), autocast=self._autocast())

    def _moved_in_one_step(self, x, c, generator):
        if self.flow_.student is None:
            raise ValueError("The fit had distill=False, so that there is no student. Fit again with distill=True.")
        return self.flow_.one_step(self.flow_.start(x, generator), c, autocast=self._autocast())

    def _moved_back(self, x, c, generator):
        end = self.flow_.solve(self.flow_.encode(x), c, self.grid().flip(0), autocast=self._autocast())
        return self.flow_.spread.remove(end)

    @torch.no_grad()
    def _as_bytes(self, state):
        return as_bytes(self.flow_.decode(state))

    def _autocast(self):
        return make_autocast(self.precision, self.flow_.device)
