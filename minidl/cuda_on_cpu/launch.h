// What the three parties of a launch agree on: kernel.py, a compiled file of kernels, and runtime.cpp.

#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };

struct Memory { uint64_t begin, end; };

// A __shared__ array, and the unused red zone that g++ leaves behind it, so that running over its end is noticed.
struct Shared { uint64_t begin, end, red_zone_end, used; };

// GCC's own record of a static variable; kernel.py makes a `Shared` of it if its line says __shared__.
struct Variable {
    uint64_t begin, size, size_with_red_zone;
    const char *name, *file;
    uint64_t has_constructor;
    const struct Place { const char* file; int line, column; } * place;
    uint64_t unused;
};

// kernel.py has a ctypes structure of the same fields.
struct Launch {
    uint3 grid, block;
    int32_t order;               // 0 forward, 1 reverse, 2 shuffled
    int32_t argument_count;
    uint64_t dynamic_shared;     // bytes of the `extern __shared__` array
    const char* arguments;       // eight bytes each
    const Memory* memory;        // the arrays the kernel may touch, sorted
    uint64_t memory_count;
    Shared* shared;              // `used` is set for those that the kernel touches
    uint64_t shared_count;

    // Filled in by the compiled file.
    void (*body)();              // the kernel, with its arguments
    struct Visible* visible;
    Memory image;                // the file itself in memory, with its constants

    // Filled in by the runtime if the kernel fails.
    uint3 failed_block, failed_thread;
    int32_t line;                // of the .cu file, or 0 where only the machine instruction is known:
    int32_t unused;
    uint64_t instruction;        // of a bad access, or 0: its offset in the compiled file
    uint64_t address;            // of a bad access
    char message[400];
};

// What a kernel sees besides its arrays. It belongs to the compiled file, and the runtime writes to it.
struct Visible {
    uint3 thread, block, block_size, grid_size;
    alignas(8) char arguments[1024];
};

extern "C" {
#pragma GCC visibility push(default)
int cuda_on_cpu_run(Launch* launch);
char* cuda_on_cpu_dynamic_shared();
void cuda_on_cpu_barrier(int line);
uint64_t cuda_on_cpu_warp(const char* name, int line, unsigned mask, uint64_t value, int source, unsigned* ballot);
int cuda_on_cpu_lane();
#pragma GCC visibility pop
}
