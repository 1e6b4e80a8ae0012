"""One fit of a translator: content, pairs, flow; reflow on its own pairs; a student of one step. It can be resumed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from functools import partial
from pathlib import Path

import torch

from .._devices import replayed, resolve_device
from .._persistence import read_model, write_model
from .._progress import progress_bar
from .._random import make_generator
from ..paths import PATHS
from . import content
from .domain_loss import domain_loss, fit_domain_features
from .flow import ImageFlow
from .pairing import Features, pair_by_transport, pair_independently
from .reading import as_floats, held_at_once
from .registration import registered
from .spread import fit_spread
from .training import Training, make_autocast

_CHECK_EVERY = 50
_N_PAIRINGS = 4
# Images that a reflow or a student is trained on, at most: their translations are held in memory.
_REFLOW_IMAGES = 4096
# Share of the student's steps after which the feature distance joins the squared one.
_L2_SHARE = 0.5


class ImageFit:
    """What one call of `fit` works on; `run` returns the fitted attributes.

    Parameters
    ----------
    translator : ImageTranslator
    domains : pair of Domain
    shape : tuple (channels, height, width)
    """

    def __init__(self, translator, domains, shape):
        self.translator, self.domains, self.shape = translator, domains, shape
        self.device = resolve_device(translator.device)
        self.generator = make_generator(translator.random_state)
        self.path = PATHS[translator.path]() if isinstance(translator.path, str) else translator.path
        self.autocast = make_autocast(translator.precision, self.device)
        self.history, self.flow = [], None
        self.stages = ["flow", *(f"reflow {k + 1}" for k in range(translator.n_reflow))]
        self.stages += ["distil"] if translator.distill else []

    def run(self):
        """Train all stages, from the checkpoint if there is one, and return the flow and its history."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.generator.initial_seed())
            saved = self._read_checkpoint()
            done = 0 if saved is None else saved.values["stage"]
            if saved is None:
                self._start_flow()
            else:
                self._restore(saved)
            for number in range(done, len(self.stages)):
                self._run_stage(number, saved if number == done else None)
        if self.translator.checkpoint is not None:
            Path(self.translator.checkpoint).unlink(missing_ok=True)
        return self.flow

    def _start_flow(self):
        """The parts that are fixed before the flow is trained."""
        start = time.perf_counter()
        translator = self.translator
        encoder, needs_content = None, translator.conditions == "content"
        if translator.features == "content" and (needs_content or translator.coupling == "ot"):
            limit = None if translator.max_time is None else translator.max_time / 3
            encoder = content.fit_content_encoder(
                *(domain.images for domain in self.domains), self._read, autocast=self.autocast, device=self.device,
                generator=self.generator, n_steps=min(content.N_STEPS, translator.planned_steps()), max_time=limit,
            )  # fmt: skip
            self.history.append({"stage": "content", "seconds": time.perf_counter() - start})
        self.flow = ImageFlow(translator, encoder, self.device, self.shape)
        self.flow.fit_codec_scale(self._draw_images(1, 256))
        draws = (partial(self._draw_states, which) for which in (0, 1))
        self.flow.spread = fit_spread(*draws, noise=translator.noise == "auto")
        n_conditions = self.flow.n_content + self.domains[1].n_conditions
        self.flow.velocity = translator.make_velocity(self.flow.state_shape(self.shape), n_conditions, self.generator)
        self.flow.velocity.to(self.device)
        if translator.channels_last:
            self.flow.velocity.to(memory_format=torch.channels_last)
        self.flow.n_conditions = n_conditions

    def _read(self, images, index):
        return as_floats(images.batch(index), self.device)

    def _draw_images(self, which, n):
        images = self.domains[which].images
        index = torch.randperm(len(images), generator=self.generator)[: held_at_once(self.shape, n)]
        return torch.cat([self._read(images, part) for part in index.split(64)])

    def _draw_states(self, which, n):
        return torch.cat([self.flow.encode(x) for x in self._draw_images(which, n).split(256)])

    # Stages

    def _run_stage(self, number, saved):
        name = self.stages[number]
        begin = saved.begin if saved is not None else self._states_of_chance()
        self._set_chance(begin)
        start = time.perf_counter()
        batch = self._prepare(name)
        # The flow's own field stays as it is until the stage is done: it is the teacher of this one.
        model = copy.deepcopy(self.flow.velocity)
        training = Training(model, self.translator, later=number > 0)
        if saved is not None:
            training.restore(saved)
            self._set_chance(saved.chance)
        model.requires_grad_(True).train()
        with progress_bar(self.translator.verbose, training.rate.last, 0) as progress:
            losses = []
            while training.iteration < training.rate.last:
                share = training.iteration / training.rate.last
                losses.append(training.step(partial(batch, model, share)))
                if training.iteration % _CHECK_EVERY and training.iteration < training.rate.last:
                    continue
                loss = torch.stack(losses).mean().item()
                progress(len(losses), loss)
                losses = []
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"The loss became {loss} within the first {training.iteration} steps of the {name}. Lower "
                        "learning_rate."
                    )
                self._write_checkpoint(number, begin, training)
        self._finish(name, training, start, loss)

    def _finish(self, name, training, start, loss):
        averaged = training.averaged.eval().requires_grad_(False)
        if name == "distil":
            self.flow.student = averaged
        else:
            self.flow.velocity = averaged
        self.history.append(
            {"stage": name, "seconds": time.perf_counter() - start, "n_iter": training.iteration, "loss": loss}
        )

    def _prepare(self, name):
        """The function f(model, share of the steps done) -> loss that a stage minimises."""
        if name == "flow":
            return self._flow_loss()
        x0, x1, c = self._own_pairs()
        if name != "distil":
            return partial(self._pair_loss, lambda: self._drawn(x0, x1, c))
        return partial(self._student_loss, lambda: self._drawn(x0, x1, c))

    def _drawn(self, *tensors):
        index = torch.randint(len(tensors[0]), (self.translator.batch_size,), generator=self.generator)
        return tuple(None if tensor is None else tensor[index].to(self.device) for tensor in tensors)

    def _flow_loss(self):
        index0, index1 = self._pair()
        notices = None
        if self.translator.loss == "domain":
            states = (partial(self._draw_states, which) for which in (0, 1))
            notices = fit_domain_features(
                *states, device=self.device, n_channels=self.flow.state_shape(self.shape)[0],
                n_steps=self.translator.planned_steps(),
            )  # fmt: skip

        # A few hundred operations on small images.
        bend = replayed(registered, self.device)

        def draw():
            chosen = torch.randint(len(index0), (self.translator.batch_size,), generator=self.generator)
            pair = []
            for domain, index in zip(self.domains, (index0[chosen], index1[chosen])):
                images = domain.images.batch(index)
                if self.translator.augment is not None:
                    images = self.translator.augment(images)
                pair.append(as_floats(images, self.device))
            (x0, x1), content1 = pair, None
            if self.flow.n_content:
                content0, content1 = map(self.flow.encoder.content, pair)
                x0 = bend(x0, content0, content1)
            c = self.flow.condition(x1, self.domains[1].rows(index1[chosen], self.device), content1)
            end = self.flow.encode(x1)
            return self.flow.start(x0, self.generator, towards=end), end, c

        return partial(self._pair_loss, draw, notices=notices)

    def _pair(self):
        domain0, domain1 = self.domains
        labels = (domain.labels for domain in self.domains)
        if self.translator.coupling == "independent":
            n_pairs = _N_PAIRINGS * max(len(domain0.images), len(domain1.images))
            return pair_independently(
                len(domain0.images), len(domain1.images), *labels, n_pairs=n_pairs, generator=self.generator
            )
        features = (Features(domain.images, self._features) for domain in self.domains)
        return pair_by_transport(*features, *labels, n_pairings=_N_PAIRINGS, generator=self.generator)

    @torch.no_grad()
    def _features(self, images, index):
        return self.flow.features(self._read(images, index)).float().cpu()

    def _pair_loss(self, draw, model, share, *, notices=None):
        x0, x1, c = draw()
        n = len(x0)
        t = torch.rand(n, generator=self.generator).to(self.device)
        x_t, dx_t = (x.view_as(x0) for x in self.path.sample(x0.flatten(1), x1.flatten(1), t))
        keep = None
        if c is not None:
            keep = (torch.rand(n, generator=self.generator) >= self.translator.condition_dropout).to(self.device)
        residual = self.flow.evaluate(model, x_t, t, c, self.autocast, keep) - dx_t
        return residual.square().mean() if notices is None else domain_loss(notices, x_t, residual)

    def _student_loss(self, draw, model, share):
        x0, x1, c = draw()
        moved = x0 + self.flow.evaluate(model, x0, torch.zeros(len(x0), device=self.device), c, self.autocast)
        loss = (moved - x1).square().mean()
        features = self.flow.distill_features
        if features is None or share < _L2_SHARE:
            return loss
        seen, wanted = features(self.flow.decode(moved)), features(self.flow.decode(x1))
        scale = wanted.detach().var(0).mean().clamp_min(1e-12)
        return loss + (seen - wanted).square().mean() / scale

    @torch.no_grad()
    def _own_pairs(self):
        """Source images with noise, where the flow takes them (with guidance), and the conditions that it was told."""
        domain = self.domains[0]
        if self.domains[1].n_conditions and domain.conditions is None:
            raise ValueError("Reflow and distillation translate source images: give their conditions0 as well.")
        most = held_at_once(self.flow.state_shape(self.shape), _REFLOW_IMAGES)
        parts = torch.randperm(len(domain.images), generator=self.generator)[:most].split(64)
        rows = []
        for part in parts:
            x = self._read(domain.images, part)
            c = self.flow.condition(x, domain.rows(part, self.device))
            start = self.flow.start(x, self.generator)
            end = self.flow.solve(start, c, self.translator.grid(), autocast=self.autocast)
            rows.append((start.cpu(), end.cpu(), None if c is None else c.cpu()))
        return tuple(None if column[0] is None else torch.cat(column) for column in zip(*rows))

    # Checkpoints

    def _states_of_chance(self):
        return {"own": self.generator.get_state(), "torch": torch.default_generator.get_state()}

    def _set_chance(self, states):
        self.generator.set_state(states["own"])
        torch.default_generator.set_state(states["torch"])

    def _fingerprint(self):
        """What a fit must have in common with the one that it goes on with."""
        translator = self.translator
        plain = {name: str(value) for name, value in translator.get_params(deep=False).items() if name != "checkpoint"}
        sizes = [len(domain.images) for domain in self.domains]
        return hashlib.sha256(json.dumps([plain, sizes, self.shape], sort_keys=True).encode()).hexdigest()

    def _write_checkpoint(self, number, begin, training):
        if self.translator.checkpoint is None:
            return
        parts = {"model": training.model.state_dict(), "training": training.state(), "flow": self.flow.state()}
        parts |= {"begin": begin, "chance": self._states_of_chance()}
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        values = {"stage": number, "history": self.history, "fingerprint": self._fingerprint()}
        values |= {"n_conditions": self.flow.n_conditions, "rate": training.progress()}
        write_model(self.translator.checkpoint, tensors, values)

    def _read_checkpoint(self):
        path = self.translator.checkpoint
        if path is None or not Path(path).exists():
            return None
        saved = _Saved(*read_model(path))
        if saved.values.get("fingerprint") != self._fingerprint():
            raise ValueError(
                f"{path} is the checkpoint of another fit: its parameters or data differ. Delete it, or give another "
                "checkpoint."
            )
        return saved

    def _restore(self, saved):
        self.history = saved.values["history"]
        n_conditions = saved.values["n_conditions"]
        self.flow = ImageFlow.restored(self.translator, self.shape, saved.flow, n_conditions, self.device)


class _Saved:
    """A checkpoint, by its parts."""

    def __init__(self, tensors, values):
        self.values = values
        for part in ("model", "training", "flow", "begin", "chance"):
            length = len(part) + 1
            found = {name[length:]: value for name, value in tensors.items() if name.startswith(f"{part}.")}
            setattr(self, part, found)
