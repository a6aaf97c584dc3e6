"""`r2unet score`: compare predicted masks or diagnoses with the true ones, as the ISIC challenge does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from r2unet.commands.messages import write_json
from r2unet.commands.values import given_path, new_file
from r2unet.data.images import SUFFIXES
from r2unet.errors import visible_lines
from r2unet.files import check_outputs, check_writable, visible_files

HELP = "score a folder of masks, or a table of diagnoses, as the ISIC challenge does"
DETAILS = (
    "The scores are those of the official tool, isic-challenge-scoring. Give two folders of masks, or two "
    "CSV tables of diagnoses."
)


def add_options(p: argparse.ArgumentParser) -> None:
    text = (
        "folder of true masks, ISIC_0000000*.png, or CSV table of true diagnoses, with a column for each "
        "class, as in ISIC 2017 and 2018"
    )
    p.add_argument("truth", type=given_path, metavar="TRUTH", help=text)
    text = "folder of masks, or table of diagnoses, that predict wrote"
    p.add_argument("predictions", type=given_path, metavar="PREDICTIONS", help=text)
    text = "also write JSON to F; for masks, with the scores of every image"
    p.add_argument("--json", type=new_file, metavar="F", help=text)


def run(options: argparse.Namespace) -> int:
    from r2unet.diagnosis.score import as_table as diagnoses_as_table
    from r2unet.diagnosis.score import score_diagnoses
    from r2unet.scores.evaluate import as_table
    from r2unet.scores.score import score_folders

    if options.json:
        check_writable("--json", options.json.parent)
        check_outputs("--json", [options.json], _inputs(options))
    diagnoses = options.truth.is_file()
    scores = (score_diagnoses if diagnoses else score_folders)(options.truth, options.predictions)
    if options.json:
        write_json(options.json, scores)
    table = diagnoses_as_table(scores) if diagnoses else as_table({"predictions": scores})
    print(visible_lines(table))
    return 0


def _inputs(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the two tables, or the masks in the two folders."""
    for path in (options.truth, options.predictions):
        if path.is_dir():
            yield from (file for file in visible_files(path) if file.suffix.lower() in SUFFIXES)
        else:
            yield path
