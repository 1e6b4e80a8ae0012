"""Accuracy on a domain without labels: this library's defaults, beside other methods, by one fixed protocol.

    python benchmarks/domain_adaptation.py [--tasks 'gas-*' mnist-usps] [--methods rfadapt 'skada-*'] [--resume]

inductive: fit on the source and a random 70 % of the target's rows, without labels; accuracy on the other 30 %. The
classifier is picked by cross-validation on the raw source, once per task and seed, for all methods. transductive: all
rows of the target are adapted to and scored, with 1-NN. labelled: as inductive, with --labelled labels of each class of
the target. regression: as inductive, with R2. several: as inductive, from several sources, which all methods but
rfadapt-several take as one. With --scorers, instead: how the scorers of rfadapt.model_selection, which need no label,
rank transports.

Every fit is a process of its own with one thread and a time limit. Means over seeds go to
benchmarks/domain_adaptation_results.md, every single score to the .csv beside it, as they come. With --resume scores
that are there are kept, failures and the remarks at the top of the page too; --redo names methods to measure again
nonetheless, in the protocols, tasks and seeds that are asked for.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy reads it
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import csv
import multiprocessing
import sys
import time
import warnings
from fnmatch import fnmatch
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import own_process
import pandas as pd
import torch
from da_methods import METHODS, PROTOCOLS, SETTINGS, applies, measure, measure_scorers, pose
from da_tasks import tasks
from scipy.stats import spearmanr, studentized_range

HERE = Path(__file__).resolve().parent
FIELDS = ("task", "seed", "protocol", "method", "classifier", "score", "seconds", "chosen", "reason", "scorer")
PACKAGES = ("rfadapt", "scikit-learn", "numpy", "torch", "POT", "skada")
_NOT_RANKED = ("target-only",)
_REPORT_EVERY = 20  # seconds
_HOW_TO_READ = """Accuracy (R2 for regression) on the target in percent, means over the seeds that finished; what the
protocols are is said in domain_adaptation.py. The rows below the tasks count those that every method has been tried on.
In the mean, a task that failed counts as source-only; in the ranks as last. Worst change is against source-only.
target-only has the labels, and is not ranked."""
_LEFT_OUT = "Left out: "


class Results:
    """The rows so far, in a file that grows with each."""

    def __init__(self, path, resume, is_redone):
        self.path, self.rows = path, []
        if resume and path.is_file():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if not is_redone(row)]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)
        self.done = {(row["task"], int(row["seed"]), row["protocol"], row["method"]) for row in self.rows}

    def add(self, rows):
        rows = [{field: row.get(field, "") for field in FIELDS} for row in rows]
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerows(rows)
        self.rows += rows

    def frame(self):
        frame = pd.DataFrame(self.rows, columns=FIELDS)
        return frame.assign(score=pd.to_numeric(frame["score"]), seed=frame["seed"].astype(int))


def matches(name, patterns):
    return any(fnmatch(name, pattern) for pattern in patterns)


def is_redone(arguments, row):
    """Whether a score is one of those that are asked for and to be measured again."""
    protocol = "labelled" if row["protocol"].startswith("labelled") else row["protocol"]
    asked = matches(row["task"], arguments.tasks) and int(row["seed"]) in arguments.seeds
    return matches(row["method"], arguments.redo) and protocol in arguments.protocols and asked


def named(found, patterns):
    """The tasks or methods of such names, and those of them that are left out, with the reasons."""
    reasons = {name: found[name].missing() for name in found if matches(name, patterns)}
    left_out = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    return {name: found[name] for name, reason in reasons.items() if not reason}, left_out


def problems(chosen, methods, results, arguments):
    """(where, problem) of each measurement to make; a problem is built once for all methods that follow."""
    for name, task in chosen.items():
        for seed in arguments.seeds:
            for protocol in arguments.protocols:
                scorers, as_posed = protocol == "scorers", "inductive" if protocol == "scorers" else protocol
                if not applies(as_posed, name, task):
                    continue
                label = f"labelled-{arguments.labelled}" if protocol == "labelled" else protocol
                todo = SETTINGS if scorers else [method for method in methods if METHODS[method].applies(protocol)]
                todo = [method for method in todo if (name, seed, label, method) not in results.done]
                problem = posed(task, seed, as_posed, arguments.labelled) if todo else None
                for method in todo:
                    where = {"task": name, "seed": seed, "protocol": label, "method": method}
                    classifier = "LogisticRegression" if scorers else type(getattr(problem, "estimator", None)).__name__
                    yield where | {"classifier": classifier}, problem


def posed(*arguments):
    """The problem, or the error; one broken task is not to end a run of hours."""
    try:
        return pose(*arguments)
    except Exception as error:
        return error


def in_child(sender, problem, method, protocol):
    warnings.simplefilter("ignore")
    try:
        if isinstance(problem, Exception):
            raise problem
        rows = (measure_scorers if protocol == "scorers" else measure)(problem, method)
    except Exception as error:
        rows = [{"reason": " ".join(f"{type(error).__name__}: {error}".split())[:300]}]
    sender.send(rows)


def run_all(jobs, workers, limit):
    """Run each job in a forked process, `workers` at a time; yields (where, rows) as they end.

    Forked, because importing everything takes longer than most fits; killed past the limit, because a signal does not
    interrupt compiled code.
    """
    context, running, more = multiprocessing.get_context("fork"), {}, True
    while more or running:
        while more and len(running) < workers:
            if not (more := (job := next(jobs, None)) is not None):
                break
            where, problem = job
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=in_child, args=(sender, problem, where["method"], where["protocol"]))
            process.start()
            sender.close()
            running[receiver] = process, where, time.monotonic() + limit
        first = min((deadline for _, _, deadline in running.values()), default=0.0)
        ready = wait(list(running), max(first - time.monotonic(), 0.0))
        for receiver, (process, where, deadline) in list(running.items()):
            if receiver in ready:
                try:
                    rows = receiver.recv()
                except EOFError:
                    rows = [{"reason": "the process died, perhaps out of memory"}]
            elif time.monotonic() > deadline:
                process.kill()
                rows = [{"reason": f"out of time ({limit:g} s)", "seconds": limit}]
            else:
                continue
            del running[receiver]
            receiver.close()
            process.join()
            yield where, [where | row for row in rows]


def table(frame):
    """A DataFrame as Markdown, with one decimal."""
    lines = ["| " + " | ".join([frame.index.name or "", *frame.columns]) + " |", "|" + "---|" * (frame.shape[1] + 1)]
    for name, row in frame.iterrows():
        cells = (value if isinstance(value, str) else "" if np.isnan(value) else f"{value:.1f}" for value in row)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def summary(scores):
    """Rows under a table of tasks by methods: what the methods reach on the tasks that all have been tried on."""
    filled = scores.apply(lambda column: column.fillna(scores["source-only"]))
    change = scores.sub(scores["source-only"], axis=0)
    ranked = scores.drop(columns=[name for name in _NOT_RANKED if name in scores])
    ranks = ranked.fillna(-np.inf).rank(axis=1, ascending=False)
    rows = {"**mean**": filled.mean(), "worst change": change.min(), "tasks worse": (change < 0).sum()}
    rows |= {"tasks failed": scores.isna().sum(), "mean rank": ranks.mean()}
    return pd.DataFrame(rows).T.astype(float)[scores.columns], ranks


def ranks_as_text(ranks):
    """Mean ranks with the critical difference of Nemenyi's test at 0.05 (Demsar, JMLR 2006)."""
    means, (n, k) = ranks.mean().sort_values(), ranks.shape
    if k < 2:
        return ""
    difference = studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    alike = means.index[means <= means.iloc[0] + difference]
    order = " < ".join(f"{name} {rank:.2f}" for name, rank in means.items())
    text = f"Mean ranks over {n} tasks: {order}.\n\nCritical difference (Nemenyi, 0.05): {difference:.2f}. Not to be "
    text += f"told from the best, {means.index[0]}: {', '.join(alike[1:]) or 'none'}. Pairs of the same domains are "
    return text + "not independent tasks, so that the true difference is larger.\n"


def protocol_as_text(protocol, frame, names):
    """The section of a protocol: its table, and what the default chose."""
    tried = frame.pivot_table(index="task", columns="method", values="seed", aggfunc="count")
    scores = 100 * frame.pivot_table(index="task", columns="method", values="score", dropna=False)
    scores = scores.reindex(columns=[name for name in METHODS if name in tried], index=names).dropna(how="all")
    text = f"## {protocol}\n\n"
    if scores.empty:
        return text + "Nothing finished.\n\n"
    classifiers = frame.groupby("task")["classifier"].agg(lambda column: ", ".join(column.unique()))
    shown, ranks = scores.assign(trained=classifiers), None
    complete = scores.loc[tried.reindex(index=scores.index, columns=scores.columns).notna().all(axis=1)]
    if "source-only" in scores and len(complete):
        below, ranks = summary(complete)
        shown = pd.concat([shown, below.assign(trained="")])
    text += table(shown.rename_axis("task")) + "\n"
    if ranks is not None:
        text += ranks_as_text(ranks) + "\n"
    chosen = frame[(frame["method"] == "rfadapt") & frame["score"].notna()].groupby("task")["chosen"]
    if len(chosen):
        counts = (f"{name}: {', '.join(column)}" for name, column in chosen)
        text += "Chosen by rfadapt, seed by seed: " + "; ".join(counts) + ".\n\n"
    return text


def scorers_as_text(frame):
    """One table a scorer: its rank correlation with the accuracy over settings, and what its choice loses."""
    keys = ["task", "seed", "method"]
    truth, text = frame[frame["scorer"] == ""].set_index(keys)["score"].dropna().sort_index(), ""
    for name, part in frame[frame["scorer"] != ""].groupby("scorer"):
        values = part.set_index(keys)["score"].dropna()
        rows = []
        for (task, seed), given in values.groupby(level=[0, 1]):
            accuracy = truth.loc[given.index]
            varied = given.nunique() > 1 and accuracy.nunique() > 1
            row = {"task": task, "Spearman": spearmanr(given, accuracy).statistic if varied else np.nan}
            # Of settings that score the same, the one that is first among SETTINGS, as a search takes it.
            order = [(task, seed, setting) for setting in SETTINGS if (task, seed, setting) in given.index]
            oracle, selected = 100 * truth.xs((task, seed)).max(), 100 * accuracy.loc[given.loc[order].idxmax()]
            row |= {"selected": selected, "oracle": oracle, "loss": oracle - selected}
            rows.append(row | {setting: 100 * truth.get((task, seed, setting), np.nan) for setting in SETTINGS[:2]})
        if rows:
            means = pd.DataFrame(rows).groupby("task").mean()
            means.loc["**mean**"] = means.mean()
            means["Spearman"] = [f"{value:.2f}" for value in means["Spearman"]]
            text += f"## {name}\n\n{table(means)}\n"
    return text


def remarks_in(page):
    """What has been written by hand between the head of a page of results and its first section."""
    if not page.is_file():
        return ""
    paragraphs = page.read_text().partition(_HOW_TO_READ)[2].partition("\n## ")[0].strip().split("\n\n")
    return "\n\n".join(text for text in paragraphs if not text.startswith(_LEFT_OUT))


def as_text(results, left_out, names, remarks):
    frame = results.frame()
    text = f"# Domain adaptation\n\n{own_process.machine(1, PACKAGES)}\n\n{_HOW_TO_READ}\n\n"
    if left_out:
        text += f"{_LEFT_OUT}{'; '.join(left_out)}.\n\n"
    if remarks:
        text += f"{remarks}\n\n"
    for protocol, part in frame.groupby("protocol", sort=False):
        is_scorers = protocol == "scorers"
        text += scorers_as_text(part) if is_scorers else protocol_as_text(protocol, part, names)
    failed = frame[frame["score"].isna()]
    if len(failed):
        text += "## Failures\n\n"
        for keys, part in failed.groupby(["protocol", "task", "method", "scorer", "reason"], sort=False):
            seeds = ", ".join(map(str, part["seed"]))
            text += f"- {' '.join(key for key in keys[:4] if key)}, seed {seeds}: {keys[4]}\n"
    return text


def main():
    default = os.environ.get("RFADAPT_DATA", HERE.parent.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--tasks", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--methods", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS, choices=PROTOCOLS)
    parser.add_argument("--scorers", action="store_true", help="measure the label-free scorers, not the protocols")
    parser.add_argument("--labelled", type=int, default=3, help="labels a class in the protocol of that name")
    parser.add_argument("--limit", type=float, default=300, help="seconds of one fit")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--results", type=Path, help="path of the two files, without their endings")
    parser.add_argument("--resume", action="store_true", help="keep the scores that the .csv has")
    parser.add_argument("--redo", nargs="+", default=[], metavar="GLOB", help="methods that --resume does not keep")
    arguments = parser.parse_args()
    if arguments.scorers:
        arguments.protocols = ["scorers"]
    prefix = arguments.results or HERE / f"domain_adaptation_{'scorers' if arguments.scorers else 'results'}"
    torch.set_num_threads(1)
    every = tasks(arguments.data)
    chosen, without_data = named(every, arguments.tasks)
    methods, not_installed = named(METHODS, arguments.methods)
    left_out = without_data + not_installed
    if not chosen or not methods:
        sys.exit("; ".join(left_out) or "No task or no method has such a name.")
    print(*left_out, sep="\n", flush=True)
    remarks = remarks_in(Path(f"{prefix}.md")) if arguments.resume else ""
    results, reported = Results(Path(f"{prefix}.csv"), arguments.resume, partial(is_redone, arguments)), 0.0
    for where, rows in run_all(problems(chosen, methods, results, arguments), arguments.jobs, arguments.limit):
        results.add(rows)
        first = rows[0]
        said = f"{first['score']:.3f} {first.get('chosen', '')}" if "score" in first else first["reason"]
        print(*list(where.values()), said, f"{first.get('seconds', 0):.1f} s", flush=True)
        if time.monotonic() - reported > _REPORT_EVERY:
            Path(f"{prefix}.md").write_text(as_text(results, left_out, list(every), remarks))
            reported = time.monotonic()
    Path(f"{prefix}.md").write_text(as_text(results, left_out, list(every), remarks))


if __name__ == "__main__":
    main()
