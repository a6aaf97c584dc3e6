"""Normalisation: batch norm and group norm.

| file | implementation | device |
|---|---|---|
| `batch.py` | the definition of batch norm, with or without a ReLU after it | every device |
| `fused_cpu.py` | few passes over x, in pieces that fit into the cache | CPU |
| `fused_cuda.py`, `.cu` | CUDA kernels | GPU |
| `group.py` | the definition of group norm, with or without a ReLU after it | every device |
| `group_cpu.py` | the same passes over x with other parameters | CPU |
| `group_cuda.py`, `.cu` | CUDA kernels | GPU |

`fused.py` derives the formulas of the faster implementations, `row_passes.py` has the passes on the CPU.
"""

from minidl.ops.norm import (  # noqa: F401  (importing registers them)
    fused_cpu,
    fused_cuda,
    group_cpu,
    group_cuda,
)
from minidl.ops.norm.batch import batch_norm
from minidl.ops.norm.group import group_norm

__all__ = ["batch_norm", "group_norm"]
