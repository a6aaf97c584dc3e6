"""What all attacks share: the honest files, the random generator, and what honest commands write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.assault.honest import r2unet
from tests.assault.mutations import NUMBERS, TEXTS, VALUES, Rng, Values
from tests.assault.trial import Files, files_in


class Attacks:
    """Prepares trials from the honest files in a folder. `rng` decides everything."""

    def __init__(self, honest: Path, rng: Rng) -> None:
        self.honest, self.rng = honest, rng
        self.values, self.cells = Values(VALUES, rng), Values(TEXTS | NUMBERS.map(str), rng)
        self.pictures = sorted((honest / "pictures").iterdir())
        self.expected: dict[tuple[str, ...], Files] = {}  # what honest commands write

    def copy(self, folder: Path, *names: str) -> None:
        """Copy honest files and folders into the folder of a trial."""
        for name in names:
            source, target = self.honest / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def results(self, words: list[str], names: tuple[str, ...], scratch: Path) -> Files:
        """Return what a command writes to `out` if its inputs are honest; it is run once."""
        if tuple(words) not in self.expected:
            self.copy(scratch, *names)
            here = os.getcwd()
            os.chdir(scratch)
            r2unet(*words)
            os.chdir(here)
            written = files_in(scratch)
            self.expected[tuple(words)] = {n: c for n, c in written.items() if n.startswith("out")}
            shutil.rmtree(scratch)
        return self.expected[tuple(words)]

    def one_of(self, *choices: str) -> str:
        return str(self.rng.choice(choices))
