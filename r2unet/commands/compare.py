"""`r2unet compare`: a study, which trains several variants of a network and compares their scores."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from minidl.backend import resolve_device
from r2unet.commands.messages import line_printer, print_error
from r2unet.commands.options import (
    MAX_THREADS,
    add_cache,
    add_data,
    add_device,
    add_feed,
    add_pictures,
    add_training,
    add_trust,
    resources_given,
    settings_given,
)
from r2unet.commands.values import given_path, number, seeds
from r2unet.errors import InputError, visible, visible_lines
from r2unet.files import check_writable
from r2unet.study.studies import SEEDS, STUDIES, Variant
from r2unet.training.feed import count_workers
from r2unet.training.lock import locked
from r2unet.training.prediction_memory import check_size
from r2unet.training.settings import as_text

HELP = "train variants of a network and compare their scores"
DETAILS = (
    "All rows share the data, the seeds and the settings given here, except the settings that a row changes. "
    "Ctrl-C saves the training runs; the same command resumes them."
)


def add_options(p: argparse.ArgumentParser) -> None:
    about = " ".join(f"{study.name}: {study.question}" for study in STUDIES.values() if study.variants)
    p.add_argument(
        "study", choices=STUDIES, metavar="|".join(STUDIES), help=f"{about} own: the rows of --variant"
    )
    p.add_argument(
        "--out",
        required=True,
        type=given_path,
        metavar="DIR",
        help="folder for the training runs and the results",
    )
    text = f"train every row with each of these seeds (default {as_text(SEEDS)})"
    p.add_argument("--seeds", type=seeds, metavar="A,B,...", help=text)
    p.add_argument(
        "--variant",
        type=variant,
        action="append",
        default=[],
        metavar="'LABEL: SETTING=VALUE ...'",
        help="add a row with these training settings; may be repeated",
    )
    p.add_argument(
        "--reuse",
        type=given_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of another study, from which to copy runs with the same settings; may be repeated",
    )
    p.add_argument("--only-report", action="store_true", help="train nothing; report on the finished runs")
    add_execution(p)
    add_trust(p)
    add_data(p)
    add_training(p)
    add_device(p)
    add_feed(p)
    add_cache(p)


def add_execution(p: argparse.ArgumentParser) -> None:
    """Add the options for running a study and for its report."""
    p.add_argument(
        "--jobs",
        type=number(int, 1, MAX_THREADS),
        default=1,
        metavar="N",
        help="training runs in parallel, each in its own process with its own images (default %(default)s)",
    )
    p.add_argument(
        "--originals", action="store_true", help="score outlines at the original size of the images"
    )
    add_pictures(p)


def variant(text: str) -> Variant:
    """Convert "LABEL: SETTING=VALUE ..." to a row of a study; each SETTING is an option of train."""
    label, colon, changes = (part.strip() for part in text.partition(":"))
    words = changes.split()
    if not (label and words and all("=" in word for word in words)):
        example = "'no skips: model=unet skips=none'"
        raise argparse.ArgumentTypeError(f"must be LABEL: SETTING=VALUE ..., such as {example}, got {text!r}")
    parser = _VariantParser(add_help=False, allow_abbrev=False)
    add_training(parser)
    return Variant(label, vars(parser.parse_args([f"--{word.replace('_', '-')}" for word in words])))


class _VariantParser(argparse.ArgumentParser):
    """Raises its errors, so that argparse reports them as errors of --variant."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentTypeError(message)


def run(options: argparse.Namespace) -> int:
    check_writable("--out", options.out)
    if options.only_report:  # what it writes may be written at any time
        return _compare(options)
    with locked("--out", options.out):
        return _compare(options)


def _compare(options: argparse.Namespace) -> int:
    from r2unet.study.plan import PLAN, open_study
    from r2unet.study.report import write_report
    from r2unet.study.reuse import copy_finished, finished_runs
    from r2unet.study.run_pictures import TRUST
    from r2unet.study.train_study import Resources, train_study
    from r2unet.training.interruption import Interrupted

    out, device, errors = options.out, resolve_device(options.device), []
    if options.cache:
        check_writable("--cache", options.cache)
    if options.jobs > 1 and options.workers not in ("auto", 0):
        raise InputError(
            f"--workers {options.workers}: runs that are trained at the same time prepare their own batches; "
            "omit the option, or --jobs"
        )
    given = settings_given(options)
    if options.reuse and options.only_report:
        raise InputError("--reuse: has no effect with --only-report, which trains nothing; omit one of them")
    finished = finished_runs(options.reuse)
    trust = options.trust or not (out / PLAN).exists()  # a new study has the settings of the command line
    plan = open_study(out, options.study, given, options.seeds, options.variant, options.only_report)
    if not trust:  # asked now, and not after the training
        for row in plan.rows:
            check_size(out / PLAN, row.settings, {}, remedy=TRUST)
    progress_bar = sys.stderr.isatty() and options.jobs == 1
    resources = Resources(
        device,
        options.conv,
        options.threads,
        options.cache,
        progress_bar,
        options.feed,
        count_workers(options.workers, device) if options.jobs == 1 else 0,
        trust,
    )
    log, trained = line_printer(progress_bar), False
    if not options.only_report:
        copy_finished(out, plan, finished, log)
        unfinished = [task for task in plan.tasks(out) if not task.finished]
        try:
            errors = train_study(out, plan, resources, options.jobs, log)
        except Interrupted as interrupted:
            text = resources_given(options, add_execution, add_trust, add_device, add_feed, add_cache)
            print(visible(f"{interrupted} {text}".rstrip()), file=sys.stderr)
            return 130
        trained = any(task.finished for task in unfinished)
    for error in errors:
        print_error(error)
    if errors and not any(task.finished for task in plan.tasks(out)):
        return 2  # there is nothing to report on
    table = write_report(out, plan, resources, options.originals, options.pictures, log, trained)
    print(visible_lines(table))
    print(visible(f"the tables and figures are in {out}"))
    return 2 if errors else 0
