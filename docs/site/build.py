"""Builds the site: chapters, results, model cards and the API reference, to be read without a network.

    make docs                                  into build/site; open build/site/index.html
    python docs/site/build.py --out DIR        the same, into DIR

Sphinx reads Markdown from one folder, and knows nothing of links to source files. So the pages are first
copied to DIR-source, in the layout of the repository and with their links rewritten (`pages`), next to pages
of the API that are generated from docstrings (`reference`). Sphinx then writes the site, every warning being
an error. Source files get pages of their own (`code_pages`), to which the links lead. Last, the site is
checked (`check`).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import check
import code_pages
import pages
import reference

ROOT = Path(__file__).parents[2]


def build(out: Path) -> list[str]:
    """Write the site into `out`, replacing an older one; return its problems, [] if all is well."""
    staging = out.with_name(out.name + "-source")
    for folder in (out, staging):
        shutil.rmtree(folder, ignore_errors=True)
    api = reference.write(staging / "reference")
    linked = pages.write(staging, api)
    options = ["-b", "html", "-W", "--keep-going", "-n", "-q"]
    options += ["-d", str(staging / ".doctrees"), "-c", str(Path(__file__).parent)]
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(staging), str(out)], check=True)
    code_pages.write(out / "code", linked)
    return check.check(out)


def main() -> int:
    """Build and check the site; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    out, started = parser.parse_args().out.resolve(), time.monotonic()
    try:
        problems = build(out)
    except (pages.PageError, subprocess.CalledProcessError) as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"the site is in {out} ({time.monotonic() - started:.0f} s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
