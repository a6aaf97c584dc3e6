// Checks every memory access of a kernel, and some of its arithmetic, for errors that a GPU ignores.
//
// g++ inserts the calls. Functions named __asan_... belong to -fsanitize=kernel-address: one is called before each
// read or write, and the program must define it. Functions named __ubsan_... belong to -fsanitize=bounds and similar
// options, and are called only after an error.

#include <cstring>
#include <dlfcn.h>
#include <initializer_list>

#include "runtime.h"

namespace {

bool within(uint64_t address, uint64_t bytes, Memory region) {
    return region.begin <= address && address + bytes <= region.end;
}

Memory recent[1024];  // a cache: for each 64 bytes of memory, the region last found there

// Returns the region that contains an address and that the kernel may access, or an empty region.
Memory region_of(uint64_t address) {
    const Memory *low = running->memory, *high = low + running->memory_count;  // sorted: binary search
    while (low < high) {
        const Memory* middle = low + (high - low) / 2;
        if (address < middle->begin) high = middle;
        else if (address >= middle->end) low = middle + 1;
        else return *middle;
    }
    for (Memory own : {stack_of_thread(), dynamic_shared_memory()})
        if (within(address, 1, own)) return own;
    for (Shared* array = running->shared; array < running->shared + running->shared_count; array++)
        if (array->begin <= address && address < array->red_zone_end) {
            array->used = 1;
            return {array->begin, array->end};
        }
    // Constants of the compiled file. Shared arrays lie between them, so the region is limited to 16 bytes.
    return within(address, 1, running->image) ? Memory{address, address + 16} : Memory{};
}

inline void check(uint64_t address, uint64_t bytes, const char* verb, void* instruction) {
    Memory& region = recent[address >> 6 & 1023];
    if (within(address, bytes, region) || !running) return;
    region = region_of(address);
    if (within(address, bytes, region)) return;
    Dl_info file;
    dladdr(instruction, &file);
    running->instruction = uint64_t(instruction) - uint64_t(file.dli_fbase) - 1;
    running->address = address;
    fail({}, "%s %d bytes", verb, int(bytes));
}

}  // namespace

void forget_regions() { memset(recent, 0, sizeof recent); }

extern "C" {

#define CHECK(bytes)                                                                                            \
    void __asan_load##bytes##_noabort(uint64_t a) { check(a, bytes, "reads", __builtin_return_address(0)); }    \
    void __asan_store##bytes##_noabort(uint64_t a) { check(a, bytes, "writes", __builtin_return_address(0)); }
CHECK(1)
CHECK(2)
CHECK(4)
CHECK(8)
CHECK(16)
void __asan_loadN_noabort(uint64_t a, uint64_t n) { check(a, n, "reads", __builtin_return_address(0)); }
void __asan_storeN_noabort(uint64_t a, uint64_t n) { check(a, n, "writes", __builtin_return_address(0)); }

// The records of the undefined-behaviour sanitizer start with the location in the source.
void __ubsan_handle_out_of_bounds(Place* place, uint64_t index) {
    fail(*place, "index %lld is outside its array", static_cast<long long>(index));
}
void __ubsan_handle_type_mismatch_v1(Place* place, uint64_t address) {
    fail(*place, "address %#llx is not aligned for its type", static_cast<long long>(address));
}
void __ubsan_handle_divrem_overflow(Place* place, uint64_t, uint64_t) { fail(*place, "divides by zero"); }
#define OVERFLOW(name, operation)                                                                               \
    void __ubsan_handle_##name##_overflow(Place* place, uint64_t, uint64_t) {                                   \
        fail(*place, operation " overflows its integer type");                                             \
    }
OVERFLOW(add, "an addition")
OVERFLOW(sub, "a subtraction")
OVERFLOW(mul, "a multiplication")
OVERFLOW(negate, "a negation")
}
