"""The command line: `rfadapt demo | compare | fit | transform | translate-images`."""

from __future__ import annotations

import argparse
import sys
import warnings

from ._version import __version__

# Modules that load torch, pandas or matplotlib are imported by the commands that need them, so that --help
# and mistakes in the options are answered at once.

_DATA = "data file: .csv, .parquet, .npy, .npz (or file.npz:key)"


def main(argv=None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process otherwise.

    Returns
    -------
    status : int
        0 if it worked, 2 after a mistake in the input, which is explained in one line on stderr, 130 after
        Ctrl-C. Like argparse, exits at once after a mistake in the options.
    """
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _WarningPrinter()
        try:
            args.run(args)
        except KeyboardInterrupt:
            print("rfadapt: interrupted; nothing was written.", file=sys.stderr)
            return 130
        except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
            if args.traceback:
                raise
            print(f"rfadapt: error: {_one_line(error)}", file=sys.stderr)
            return 2
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="rfadapt", description="Move samples of one domain onto another by rectified flow."
    )
    parser.add_argument("--version", action="version", version=f"rfadapt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="show it on data that ships with scikit-learn")
    demo.set_defaults(run=_demo)
    _add_output(demo, "rfadapt-demo.html", "the HTML report")
    _add_fit_options(demo, scaling=False)

    compare = commands.add_parser("compare", help="compare transports from SOURCE to TARGET")
    compare.set_defaults(run=_compare)
    _add_samples(compare)
    _add_output(compare, "rfadapt-report.html", "the HTML report")
    compare.add_argument("--transports", nargs="+", metavar="NAME", help="which to compare (default: all)")
    compare.add_argument("--label", metavar="COLUMN", help="column (.npz: array) with the class of each row")
    compare.add_argument("--target-label", metavar="COLUMN", help="its name in TARGET, if it differs")
    _add_fit_options(compare)

    fit = commands.add_parser("fit", help="learn the map from SOURCE to TARGET")
    fit.set_defaults(run=_fit)
    _add_samples(fit)
    _add_output(fit, None, "the fitted model")
    fit.add_argument("--transport", default="flow", metavar="NAME", help="which to fit (default: flow)")
    fit.add_argument("--reflow", type=int, metavar="ROUNDS", help="rounds of reflow (default: 0)")
    _add_fit_options(fit)

    transform = commands.add_parser("transform", help="move the rows of INPUT by a fitted MODEL")
    transform.set_defaults(run=_transform)
    transform.add_argument("model", metavar="MODEL", help="file that fit wrote")
    transform.add_argument("input", metavar="INPUT", help=_DATA + "; read in chunks, but for .npz")
    _add_output(transform, None, "the moved rows; its suffix says the format")
    transform.add_argument("--inverse", action="store_true", help="move rows of TARGET back to SOURCE")
    _add_drop(transform)

    translate = commands.add_parser("translate-images", help="translate images of folder SOURCE into such as TARGET's")
    translate.set_defaults(run=_translate_images)
    translate.add_argument("source", metavar="SOURCE", help="folder of images")
    translate.add_argument("target", metavar="TARGET", help="another; nothing in it need belong to SOURCE")
    _add_output(translate, None, "folder for the translated images of SOURCE")
    translate.add_argument("--model", metavar="FILE", help="file of the translator: written, or, with --load, read")
    translate.add_argument("--load", action="store_true", help="take the one in --model")
    translate.add_argument("--inverse", action="store_true", help="translate the images of TARGET back")
    translate.add_argument("--image-size", type=int, metavar="PIXELS", help="sides of images (default: TARGET's)")
    translate.add_argument("--max-time", type=float, metavar="SECONDS", help="of each round of training at most")
    translate.add_argument("--reflow", type=int, default=0, metavar="ROUNDS", help="rounds of reflow (default: 0)")
    translate.add_argument("--distill", action="store_true", help="train a student that translates in one step")
    translate.add_argument("--checkpoint", metavar="FILE", help="state of the fit; one that is killed goes on from it")
    translate.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be read")
    _add_fit_options(translate, scaling=False)

    for command in (demo, compare, fit, transform, translate):
        command.add_argument("--traceback", action="store_true", help="show where an error came from")
    return parser


def _add_samples(parser):
    parser.add_argument("source", metavar="SOURCE", help=_DATA + "; X0 in messages")
    parser.add_argument("target", metavar="TARGET", help="another, with the same columns; X1 in messages")
    _add_drop(parser)


def _add_drop(parser):
    parser.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns to leave out")


def _add_output(parser, default, what):
    parser.add_argument(
        "-o", "--output", default=default, required=default is None, metavar="FILE",
        help=f"{what}{'' if default is None else f' (default: {default})'}",
    )  # fmt: skip


def _add_fit_options(parser, *, scaling=True):
    if scaling:
        parser.add_argument(
            "--scaling", choices=["feature", "common", "none"], help="of the flow: how features are brought to "
            "common units (default: feature; common: pixels, embeddings)",
        )  # fmt: skip
    parser.add_argument("--max-iter", type=int, metavar="N", help="optimiser steps of the flow per round")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same result (default: 0)")


def _demo(args):
    from ._persistence import atomic_path
    from .demo import run_demo

    with atomic_path(args.output) as temporary:
        report, digits, colours = run_demo(max_iter=args.max_iter, random_state=args.seed, progress=_say)
        report.write(temporary)
    _print_table("Drifted digits", digits)
    _print_table("Colours of photographs", colours)
    print(f"\nThe report is in {args.output}")


def _compare(args):
    from ._persistence import atomic_path
    from .compare import SHORT_NAMES
    from .compare_report import report_comparison
    from .tables import read_table

    if args.target_label is not None and args.label is None:
        raise ValueError("--target-label needs --label, the name of the same column in SOURCE.")
    names = args.transports or [name for name in SHORT_NAMES if name != "class-sinkhorn" or args.label]
    transports = _make_transports(names, args)
    with atomic_path(args.output) as temporary:
        X0, y0 = read_table(args.source, drop=args.drop, label=args.label)
        X1, y1 = read_table(args.target, drop=args.drop, label=args.target_label or args.label)
        report, table = report_comparison(
            transports, X0, X1, y0=y0, y1=y1, names=(args.source, args.target),
            standardise=args.scaling in (None, "feature"), random_state=args.seed,
        )  # fmt: skip
        report.write(temporary)
    if table["error"].isna().all():
        table = table.drop(columns="error")
    _print_table(f"{args.source} → {args.target}", table.T)
    print(f"\nThe report is in {args.output}")


def _fit(args):
    from ._persistence import atomic_path
    from .tables import read_table

    transport = _make_transports([args.transport], args)[args.transport]
    with atomic_path(args.output) as temporary:
        X0, _ = read_table(args.source, drop=args.drop)
        X1, _ = read_table(args.target, drop=args.drop)
        transport.fit(X0, X1)
        transport.save(temporary)
    print(f"Fitted {type(transport).__name__} from {len(X0)} rows to {len(X1)} rows: {args.output}")


def _make_transports(names, args) -> dict:
    """Unfitted transports by short name; the flow with the options of the command line."""
    from .compare import SHORT_NAMES

    options = {"--scaling": "scaling", "--max-iter": "max_iter", "--reflow": "reflow"}
    given = {option: vars(args)[name] for option, name in options.items() if vars(args).get(name) is not None}
    if given and "flow" not in names:
        raise ValueError(f"{', '.join(given)} is for the flow, which is not among {', '.join(names)}; leave it out.")
    transports = {}
    for name in names:
        if name not in SHORT_NAMES:
            raise ValueError(f"There is no transport called {name!r}; there are {', '.join(SHORT_NAMES)}.")
        transport = SHORT_NAMES[name]()
        if "random_state" in transport.get_params():
            transport.set_params(random_state=args.seed)
        transports[name] = transport
    if "--scaling" in given:
        transports["flow"].set_params(scaling=None if args.scaling == "none" else args.scaling)
    if "--max-iter" in given:
        transports["flow"].set_params(max_iter=args.max_iter)
    if "--reflow" in given:
        transports["flow"].set_params(n_reflow=args.reflow)
    return transports


def _transform(args):
    from . import baselines, transport  # noqa: F401  (the classes that a model file may hold)
    from .base import BaseTransport, InvertibleTransport
    from .tables import open_table, write_table

    model = BaseTransport.load(args.model)
    if args.inverse and not isinstance(model, InvertibleTransport):
        raise ValueError(f"{args.model} holds a {type(model).__name__}, which has no inverse; leave out --inverse.")
    move = model.inverse_transform if args.inverse else model.transform
    reader = open_table(args.input, drop=args.drop)
    n_rows = 0
    with write_table(args.output, reader.columns) as write:
        for chunk in reader.chunks():
            write(move(chunk))
            n_rows += len(chunk)
    print(f"Moved {n_rows} rows: {args.output}")


def _translate_images(args):
    from .images import ImageTranslator

    if args.load and args.model is None:
        raise ValueError("--load needs --model, the file of the translator.")
    on_bad = "skip" if args.skip_bad else "raise"
    if args.load:
        translator = ImageTranslator.load(args.model, on_bad_image=on_bad)
    else:
        options = {"max_iter": args.max_iter, "image_size": args.image_size}
        translator = ImageTranslator(
            **{name: value for name, value in options.items() if value is not None}, max_time=args.max_time,
            n_reflow=args.reflow, distill=args.distill, checkpoint=args.checkpoint, on_bad_image=on_bad,
            random_state=args.seed, verbose=1,
        ).fit(args.source, args.target)  # fmt: skip
        if args.model is not None:
            translator.save(args.model)
    if args.inverse:
        written = translator.inverse_transform(args.target, out=args.output)
    else:
        written = translator.transform(args.source, out=args.output)
    print(f"Translated {len(written)} images: {args.output}")


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _print_table(title, table):
    print(f"\n{title}\n{table.to_string(float_format='{:.4g}'.format, na_rep='–')}")


def _one_line(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _WarningPrinter:
    """Prints every warning on one line, and once, though each chunk of a large input may raise it again."""

    def __init__(self):
        self.printed = set()

    def __call__(self, message, category, filename, lineno, file=None, line=None):
        text = _one_line(message)
        if text not in self.printed:
            self.printed.add(text)
            print(f"rfadapt: warning: {text}", file=sys.stderr)
