"""`make assault`, or `python -m tests.assault --seconds 3600 --seed 0 --out runs/assault`.

Attacks this program for a time with damaged files, odd options, kills and second processes, and prints a
table of counts. Every failing input is kept in a folder of its own below --out, and its FAILURE.txt has the
command that repeats it. The exit code is 1 if anything failed. It needs Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process with threads cannot be forked

import matplotlib

from tests.assault.honest import make_honest
from tests.assault.plan import Assault

matplotlib.use("Agg")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.assault", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="how long to attack (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument("--out", type=Path, default=Path("runs/assault"), help="folder of the results")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out, started = options.out.resolve(), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # a file system in memory: thousands of small files do not wear a disk
    scratch = Path(tempfile.mkdtemp(prefix="assault-", dir=memory if os.access(memory, os.W_OK) else None))
    (scratch / "honest").mkdir()
    try:
        make_honest(scratch / "honest")
        assault = Assault(scratch / "honest", scratch, out / "failures", options.seed)

        def save() -> None:
            assault.save(out / "counts.json", time.monotonic() - started)

        try:
            assault.run(options.seconds, save)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        save()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(assault.table())
    print(f"\n{time.monotonic() - started:.0f} s, {sum(os.times()[:4]):.0f} s of processor time")
    if assault.failed:
        print(f"\nthe failing inputs are in {out / 'failures'}")
    return 1 if assault.failed else 0


if __name__ == "__main__":
    sys.exit(main())
