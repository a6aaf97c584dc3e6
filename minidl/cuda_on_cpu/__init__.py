"""A CUDA emulator: compiles unmodified CUDA kernels with g++ and runs them on the CPU, in NumPy's memory.

A file of CUDA C is almost a file of C++. `__global__` and `__restrict__` have no effect on the result;
`threadIdx` can be a variable that is set before the kernel is called for the next thread. A launch

    kernel<<<grid, block>>>(x, y, n)     becomes     for every block: for every thread: kernel(x, y, n)

A header that defines the keywords and functions of CUDA (`cuda_on_cpu.h`) lets g++ compile the file
(`compiler.py`).

Only barriers are difficult: at `__syncthreads()` a thread must stop in the middle of the kernel until all
others have arrived. Each thread therefore runs as a *fiber* with its own stack. When a thread must wait, the
processor's registers are saved and those of another thread are restored (`blocks.cpp`, `fibers.cpp`).

Errors that a GPU ignores are reported with the line, the block and the thread: a read or write outside an
array (`checks.cpp`), a barrier that some threads never reach, an argument of the wrong type (`arguments.py`).
Shared memory and new arrays are filled with NaN, so that a value that no thread wrote is detected.
`thread_order` runs the threads in a different order, which reveals missing barriers.

    kernel = load(Path("saxpy.cu"), "float32").get_function("saxpy")
    kernel((4,), (256,), (x, y, np.float32(2), np.int32(1000)))        # x, y made by array.asarray

The emulator does not show how fast a kernel is on a GPU, nor the effect of two threads that write to the same
address at the same time. It does not support inline assembly, tensor cores, cooperative groups or half
precision.
"""

from minidl.cuda_on_cpu.compiler import KernelError, problem
from minidl.cuda_on_cpu.kernel import Kernel, Module, load, thread_order

__all__ = ["Kernel", "KernelError", "Module", "load", "problem", "thread_order"]
