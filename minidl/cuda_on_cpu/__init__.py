"""A GPU played by the CPU: CUDA kernels, unchanged, run on NumPy's memory by g++ and a few hundred lines.

A file of CUDA C is almost a file of C++. `__global__` and `__restrict__` change nothing that a CPU computes;
`threadIdx` can be a variable, which is set before the kernel is called for the next thread. So

    kernel<<<grid, block>>>(x, y, n)     is     for every block: for every thread: kernel(x, y, n)

and a header that defines CUDA's words (`cuda_on_cpu.h`) makes g++ compile the file (`compiler.py`).

One word resists: `__syncthreads()`. The first thread must stop in the middle of the kernel until all others
have come as far. Hence every thread has a stack of its own and runs as a *fiber*: where it must wait, the
processor's registers are put aside and those of another thread are taken up (`blocks.cpp`).

What a GPU does silently is an error here, with the line, the block and the thread: to read or write beyond an
array (`checks.cpp`), to wait at a barrier for threads that have left, to pass an argument of the wrong type
(`arguments.py`). Shared memory and new arrays hold NaN, so what nobody wrote is seen. `thread_order` runs the
threads in another order, and so finds the barrier that is missing.

    kernel = load(Path("saxpy.cu"), "float32").get_function("saxpy")
    kernel((4,), (256,), (x, y, np.float32(2), np.int32(1000)))        # x, y made by array.asarray

What it does not show: how fast a kernel is on a GPU; what the memory of a GPU does to two threads that
write without a barrier in the same turn; inline assembly, tensor cores, cooperative groups, half precision.
"""

from minidl.cuda_on_cpu.compiler import KernelError, problem
from minidl.cuda_on_cpu.kernel import Kernel, Module, load, thread_order

__all__ = ["Kernel", "KernelError", "Module", "load", "problem", "thread_order"]
