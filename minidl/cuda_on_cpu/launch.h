// The structures shared by the three parts of a launch: kernel.py, a compiled file of kernels, and blocks.cpp.

#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 { unsigned x, y, z; };

// A place in a source file, as GCC records it.
struct Place { const char* file; int32_t line, column; };

struct Memory { uint64_t begin, end; };

// A __shared__ array and the red zone after it, unused memory in which an access past the end is detected.
struct Shared { uint64_t begin, end, red_zone_end, used; };

// GCC's record of a static variable; kernel.py turns it into a `Shared` if its line contains __shared__.
struct Variable {
    uint64_t begin, size, size_with_red_zone;
    const char *name, *file;
    uint64_t has_constructor;
    const Place* place;
    uint64_t unused;
};

// launch.py has a ctypes structure with the same fields.
struct Launch {
    uint3 grid, block;
    int32_t order;               // 0 forward, 1 reverse, 2 shuffled
    int32_t argument_count;
    uint64_t dynamic_shared;     // bytes of the `extern __shared__` array
    const char* arguments;       // eight bytes each
    const Memory* memory;        // the arrays that the kernel may access, sorted
    uint64_t memory_count;
    Shared* shared;              // `used` is set for those that the kernel accesses
    uint64_t shared_count;

    // Filled in by the compiled file.
    void (*body)();              // the kernel, with its arguments
    struct Visible* visible;
    Memory image;                // the loaded file, with its constants

    // Filled in by blocks.cpp and checks.cpp if the kernel fails.
    uint3 failed_block, failed_thread;
    Place place;                 // its line is 0 if only the machine instruction is known
    uint64_t instruction;        // of an illegal access, or 0: its offset in the compiled file
    uint64_t address;            // of an illegal access
    char message[400];
};

// The variables that a kernel sees in addition to its arrays. The structure is part of the compiled file, and blocks.cpp writes to it.
struct Visible {
    uint3 thread, block, block_size, grid_size;
    alignas(8) char arguments[1024];
};

extern "C" {
#pragma GCC visibility push(default)
int cuda_on_cpu_run(Launch* launch);
char* cuda_on_cpu_dynamic_shared();
void cuda_on_cpu_barrier(Place place);
uint64_t cuda_on_cpu_warp(const char* name, Place place, unsigned mask, uint64_t value, int source, unsigned* ballot);
int cuda_on_cpu_lane();
#pragma GCC visibility pop
}
