"""`r2unet score`: compare a folder of predicted masks with a folder of true masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from r2unet.commands.messages import write_json
from r2unet.commands.values import new_file
from r2unet.files import check_writable

HELP = "score a folder of masks as the ISIC challenge does"
DETAILS = "The scores are those of the official tool, isic-challenge-scoring."


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("truth", type=Path, metavar="TRUTH_DIR", help="folder of true masks, ISIC_0000000*.png")
    p.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTION_DIR",
        help="folder of masks written by predict",
    )
    p.add_argument(
        "--json", type=new_file, metavar="F", help="also write JSON, with the scores of every image, to F"
    )


def run(options: argparse.Namespace) -> int:
    from r2unet.scores.evaluate import as_table
    from r2unet.scores.score import score_folders

    if options.json:
        check_writable("--json", options.json.parent)
    scores = score_folders(options.truth, options.predictions)
    if options.json:
        write_json(options.json, scores)
    print(as_table({"predictions": scores}))
    return 0
