// CUDA's keywords and functions in C++, so that g++ compiles an unmodified file of CUDA C for the CPU.
//
// Some are plain C++: `__shared__` becomes a static array, which all CUDA threads of a block share, because they run
// in a single CPU thread. Functions that make threads wait for each other are calls of blocks.cpp.

#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <math.h>  // exp, sqrt, abs, ... without std::, for float and double, as in CUDA
#include <type_traits>
#include <utility>

#include "launch.h"

#define CUDA_ON_CPU 1  // for code that only a GPU can run: #ifndef CUDA_ON_CPU

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Constant for a thread; blocks.cpp sets them before a thread runs.
static Visible cuda_on_cpu_visible;
#define threadIdx cuda_on_cpu_visible.thread
#define blockIdx cuda_on_cpu_visible.block
#define blockDim cuda_on_cpu_visible.block_size
#define gridDim cuda_on_cpu_visible.grid_size
static constexpr int warpSize = 32;

// --- vectors -------------------------------------------------------------------------------------------------

#define CUDA_ON_CPU_VECTORS(type)                                                                               \
    struct alignas(2 * sizeof(type)) type##2 { type x, y; };                                                    \
    struct type##3 { type x, y, z; };                                                                           \
    struct alignas(16) type##4 { type x, y, z, w; };                                                            \
    static inline type##2 make_##type##2(type x, type y) { return {x, y}; }                                     \
    static inline type##3 make_##type##3(type x, type y, type z) { return {x, y, z}; }                          \
    static inline type##4 make_##type##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(int)
CUDA_ON_CPU_VECTORS(float)
CUDA_ON_CPU_VECTORS(double)
#undef CUDA_ON_CPU_VECTORS

// --- numbers -------------------------------------------------------------------------------------------------

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    if constexpr (std::is_floating_point_v<decltype(x)>) return x != x || y < x ? y : x;  // a NaN is ignored
    else return y < x ? y : x;
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    std::common_type_t<A, B> x = a, y = b;
    if constexpr (std::is_floating_point_v<decltype(x)>) return x != x || x < y ? y : x;
    else return x < y ? y : x;
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
#define __expf expf  // macros, because the C library already has functions of these names
#define __logf logf
#define __powf powf
static inline float __fdividef(float x, float y) { return x / y; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
template <class To, class From> static inline To cuda_on_cpu_bits(From from) {
    To to;
    static_assert(sizeof to == sizeof from);
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }
static inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return cuda_on_cpu_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return cuda_on_cpu_bits<double>(x); }

// --- memory --------------------------------------------------------------------------------------------------

template <class V> static inline V __ldg(const V* address) { return *address; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Threads are switched only at barriers and shuffles, so all code in between is atomic.
template <class V> struct cuda_on_cpu_same { using type = V; };
#define CUDA_ON_CPU_ATOMIC(name, updated)                                                                       \
    template <class V> static inline V name(V* address, typename cuda_on_cpu_same<V>::type value) {             \
        V old = *address;                                                                                       \
        *address = updated;                                                                                     \
        return old;                                                                                             \
    }
CUDA_ON_CPU_ATOMIC(atomicAdd, old + value)
CUDA_ON_CPU_ATOMIC(atomicSub, old - value)
CUDA_ON_CPU_ATOMIC(atomicExch, value)
CUDA_ON_CPU_ATOMIC(atomicMin, value < old ? value : old)
CUDA_ON_CPU_ATOMIC(atomicMax, old < value ? value : old)
CUDA_ON_CPU_ATOMIC(atomicAnd, old & value)
CUDA_ON_CPU_ATOMIC(atomicOr, old | value)
#undef CUDA_ON_CPU_ATOMIC
template <class V>
static inline V atomicCAS(V* address, typename cuda_on_cpu_same<V>::type expected,
                          typename cuda_on_cpu_same<V>::type value) {
    V old = *address;
    if (old == expected) *address = value;
    return old;
}

// --- barriers and shuffles ----------------------------------------------------------------------------------

// The file and line of the call as default arguments, for error messages.
#define CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define PLACE Place{file, line, 0}
static inline void __syncthreads(CALLER) { cuda_on_cpu_barrier(PLACE); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, CALLER) {
    unsigned ballot;
    cuda_on_cpu_warp("__syncwarp", PLACE, mask, 0, -1, &ballot);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, CALLER) {
    unsigned ballot;
    cuda_on_cpu_warp("__ballot_sync", PLACE, mask, predicate != 0, -1, &ballot);
    return ballot;
}
static inline int __any_sync(unsigned mask, int predicate, CALLER) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, CALLER) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}

template <class V>
static inline V cuda_on_cpu_shuffle(const char* name, unsigned mask, V value, int source, Place place) {
    static_assert(sizeof(V) <= 8, "shuffles exchange numbers of 4 or 8 bytes");
    uint64_t sent = 0;
    unsigned ballot;
    memcpy(&sent, &value, sizeof value);
    uint64_t received = cuda_on_cpu_warp(name, place, mask, sent, source, &ballot);
    memcpy(&value, &received, sizeof value);
    return value;
}
// A warp can be divided into groups of `width` lanes; a lane whose source is outside its group keeps its own value.
template <class V>
static inline V __shfl_sync(unsigned mask, V value, int source, int width = 32, CALLER) {
    int first = cuda_on_cpu_lane() / width * width;
    return cuda_on_cpu_shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), PLACE);
}
template <class V>
static inline V __shfl_up_sync(unsigned mask, V value, unsigned delta, int width = 32, CALLER) {
    int lane = cuda_on_cpu_lane(), source = lane - int(delta);
    return cuda_on_cpu_shuffle("__shfl_up_sync", mask, value, source < lane / width * width ? lane : source, PLACE);
}
template <class V>
static inline V __shfl_down_sync(unsigned mask, V value, unsigned delta, int width = 32, CALLER) {
    int lane = cuda_on_cpu_lane(), source = lane + int(delta), end = (lane / width + 1) * width;
    return cuda_on_cpu_shuffle("__shfl_down_sync", mask, value, source < end ? source : lane, PLACE);
}
template <class V>
static inline V __shfl_xor_sync(unsigned mask, V value, int bits, int width = 32, CALLER) {
    int lane = cuda_on_cpu_lane(), source = lane ^ bits, end = (lane / width + 1) * width;
    return cuda_on_cpu_shuffle("__shfl_xor_sync", mask, value, source < end ? source : lane, PLACE);
}
#undef CALLER
#undef PLACE
