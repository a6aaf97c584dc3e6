"""What went wrong in a kernel, in words: the line of the .cu file, the block, the thread, the array."""

from __future__ import annotations

import subprocess
from pathlib import Path

from minidl.cuda_on_cpu.arguments import Region
from minidl.cuda_on_cpu.launch import Launch

NEAR = 1 << 20  # bytes: an address farther from every array says nothing about any of them
PAGE = 4096  # bytes: no array begins so near to address 0


def explain(kernel: str, source: Path, library: Path, launch: Launch, regions: list[Region]) -> str:
    """Return the message of a failed launch, one line."""
    line = launch.line or line_of(source, library, launch.instruction)
    where = f"{source.name}, line {line}: kernel {kernel}, " if line else f"{source.name}: kernel {kernel}, "
    block, thread = tuple(launch.failed_block), tuple(launch.failed_thread)
    message = launch.message.decode()
    if launch.instruction:
        message += f" {place(launch.address, regions)}"
    return f"{where}block {block}, thread {thread}: {message}"


def place(address: int, regions: list[Region]) -> str:
    """Return where an address lies, seen from the nearest array."""
    if address < PAGE:
        return f"at address {address:#x}, by a null pointer"
    nearest = min(regions, key=lambda r: distance(address, r), default=None)
    if nearest is None or distance(address, nearest) > NEAR:
        return f"at address {address:#x}, near no array of this launch"
    if address < nearest.begin:
        return f"{nearest.begin - address} bytes before the beginning of {nearest.name}"
    if address < nearest.end:
        return f"across the end of {nearest.name}"
    size = nearest.end - nearest.begin
    return f"{address - nearest.end} bytes behind the end of {nearest.name}, which has {size} bytes"


def distance(address: int, region: Region) -> int:
    """Return how many bytes an address lies from a region."""
    return max(region.begin - address, address - region.end, 0)


def line_of(source: Path, library: Path, instruction: int) -> int | None:
    """Return the line of the source that a machine instruction comes from, seen through what was inlined."""
    command = ["addr2line", "-i", "-e", str(library), hex(instruction)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    for frame in output.splitlines():
        file, _, line = frame.rpartition(":")
        number = line.split()[0] if line else ""
        if file == str(source) and number.isdigit():
            return int(number)
    return None
