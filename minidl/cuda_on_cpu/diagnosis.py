"""Error messages of failed launches: the line of the .cu file, the block, the thread and the array."""

from __future__ import annotations

import subprocess
from pathlib import Path

from minidl.cuda_on_cpu.arguments import Region
from minidl.cuda_on_cpu.launch import Launch

NEAR = 1 << 20  # bytes: an address farther away is not related to an array
PAGE = 4096  # bytes: no array is in the page of address 0


def explain(kernel: str, source: Path, library: Path, launch: Launch, regions: list[Region]) -> str:
    """Return the error message of a failed launch, one line."""
    if launch.place.line:
        where = f"{Path(launch.place.file.decode()).name}, line {launch.place.line}"
    else:
        where = place_of(library, launch.instruction) or source.name
    block, thread = tuple(launch.failed_block), tuple(launch.failed_thread)
    message = launch.message.decode()
    if launch.instruction:
        message += f" {place(launch.address, regions)}"
    return f"{where}: kernel {kernel}, block {block}, thread {thread}: {message}"


def place(address: int, regions: list[Region]) -> str:
    """Return the position of an address relative to the nearest array."""
    if address < PAGE:
        return f"at address {address:#x}, through a null pointer"
    nearest = min(regions, key=lambda r: distance(address, r), default=None)
    if nearest is None or distance(address, nearest) > NEAR:
        return f"at address {address:#x}, not near any array of this launch"
    if address < nearest.begin:
        return f"{nearest.begin - address} bytes before the start of {nearest.name}"
    if address < nearest.end:
        return f"across the end of {nearest.name}"
    size = nearest.end - nearest.begin
    return f"{address - nearest.end} bytes past the end of {nearest.name}, which has {size} bytes"


def distance(address: int, region: Region) -> int:
    """Return the distance in bytes between an address and a region."""
    return max(region.begin - address, address - region.end, 0)


def place_of(library: Path, instruction: int) -> str | None:
    """Return the file and line of a machine instruction, also in an inlined function; None if unknown."""
    command = ["addr2line", "-i", "-e", str(library), hex(instruction)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    for frame in output.splitlines():  # the innermost function first; some are functions of cuda_on_cpu.h
        file, _, line = frame.rpartition(":")
        number = line.split()[0] if line else ""
        if Path(file).suffix in (".cu", ".cuh") and number.isdigit():
            return f"{Path(file).name}, line {number}"
    return None
