"""Normalisation: batch norm and group norm.

| file | implementation | device |
|---|---|---|
| `batch.py` | the definition of batch norm, with or without a ReLU after it | every device |
| `fused_cpu.py` | few passes over x, in pieces that fit into the cache | CPU |
| `fused_cuda.py`, `.cu` | CUDA kernels | GPU |
| `group.py` | the definition of group norm | every device |

`fused.py` derives the formulas of the two fused implementations.
"""

from minidl.ops.norm import fused_cpu, fused_cuda  # noqa: F401  (importing them registers them)
from minidl.ops.norm.batch import batch_norm
from minidl.ops.norm.group import group_norm

__all__ = ["batch_norm", "group_norm"]
