// Runs the threads of a CUDA launch, one block after the other, each thread on a fiber (fibers.cpp).
//
// All CUDA threads run in one CPU thread. A thread runs until it must wait for others, at __syncthreads() or in a
// warp shuffle; then the next one runs. When no thread can continue, the barrier opens, if all have arrived.
//
// Each order lets some threads run far ahead of others, as a GPU may. In forward and reverse order a warp runs past
// its shuffles to the next barrier before another warp runs. If a barrier is missing, the warp overwrites a shared
// array that other warps have not read yet. They then read wrong numbers, and the result of the kernel is wrong.

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "runtime.h"

Launch* running;

namespace {

constexpr int MAX_THREADS = 1024, WARP = 32;
constexpr size_t MAX_SHARED = 48 << 10;
constexpr int POISON = 0xff;  // as float or double a NaN, as int -1

enum class State { running, waiting, released, exited };

struct Thread {
    State state;
    Fiber* fiber;
    // Where it waits, and the values it sends and receives in a shuffle.
    const char* name;
    Place place;
    int source;
    unsigned mask, ballot;
    uint64_t value, received;
};

Thread threads[MAX_THREADS];
uint3 indices[MAX_THREADS];            // threadIdx of each thread
int order[MAX_THREADS];                // in which the threads run
unsigned waiting[MAX_THREADS / WARP];  // for each warp, the lanes that wait in a shuffle
int self, thread_count, exited_count;
int next_start, start_end;             // in `order`: the next thread to start, and the end of those that may
unsigned random_state;

Visible* visible;
jmp_buf failure;
alignas(16) char dynamic_shared[MAX_SHARED];

bool same(Place a, Place b) { return a.line == b.line && !strcmp(a.file, b.file); }

uint3 index_of(unsigned i, uint3 size) { return {i % size.x, i / size.x % size.y, i / size.x / size.y}; }

}  // namespace

// Aborts the kernel: all fibers are reset before the next launch.
[[noreturn]] void fail(Place place, const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(running->message, sizeof running->message, format, values);
    va_end(values);
    running->place = place;
    running->failed_block = visible->block;
    running->failed_thread = visible->thread;
    _longjmp(failure, 1);
}

Memory dynamic_shared_memory() {
    uint64_t begin = uint64_t(dynamic_shared);
    return {begin, begin + running->dynamic_shared};
}

// The work of every fiber: run the next thread that has not started, as long as one may start.
void run_threads(Fiber* fiber) {
    while (next_start < start_end) {
        int t = self = order[next_start++];
        visible->thread = indices[t];
        threads[t].state = State::running;
        threads[t].fiber = fiber;
        running->body();
        threads[t].state = State::exited;
        exited_count++;
    }
}

namespace {

unsigned random_below(unsigned n) {
    random_state = random_state * 1664525u + 1013904223u;
    return uint64_t(random_state) * n >> 32;
}

void arrange(int* items, int count) {
    for (int i = 0; i < count; i++) items[i] = running->order == 1 ? count - 1 - i : i;
    if (running->order == 2)
        for (int i = count - 1; i > 0; i--) {
            int j = random_below(i + 1), item = items[i];
            items[i] = items[j];
            items[j] = item;
        }
}

const char* name_of(int t) {
    static char written[48];
    uint3 i = indices[t];
    if (t < thread_count) snprintf(written, sizeof written, "thread (%u, %u, %u)", i.x, i.y, i.z);
    else snprintf(written, sizeof written, "lane %d", t % WARP);
    return written;
}

const char* status_of(int t) {
    static char written[128];
    if (t >= thread_count) return "is not in the block";
    if (threads[t].state == State::exited) return "has exited the kernel";
    snprintf(written, sizeof written, "waits at %s in line %d", threads[t].name, threads[t].place.line);
    return written;
}

// Called when no thread can continue: opens the barrier if all threads have arrived, and fails otherwise.
void open_barrier() {
    int first = -1;
    for (int t = 0; t < thread_count; t++) {
        Thread& thread = threads[t];
        if (thread.state != State::waiting || !thread.mask) continue;
        visible->thread = indices[t];
        for (int i = 0; i < WARP; i++) {
            int other = t / WARP * WARP + i;
            bool arrived = other < thread_count && threads[other].state == State::waiting &&
                        threads[other].name == thread.name && threads[other].mask == thread.mask;
            if (thread.mask >> i & 1 && !arrived)
                fail(thread.place, "%s with mask 0x%08x waits for %s, which %s", thread.name, thread.mask,
                     name_of(other), status_of(other));
        }
    }
    for (int t = 0; t < thread_count && first < 0; t++)
        if (threads[t].state == State::waiting) first = t;
    visible->thread = indices[first];
    for (int t = 0; t < thread_count; t++)
        if (threads[t].state == State::exited || !same(threads[t].place, threads[first].place))
            fail(threads[first].place, "__syncthreads() waits for all threads of the block, but %s %s", name_of(t),
                 status_of(t));
    for (int t = 0; t < thread_count; t++) threads[t].state = State::released;
}

// Starts or resumes the threads at order[begin] to order[end - 1]; each runs until it must wait for others.
// Returns whether any thread could run.
bool advance(int begin, int end) {
    bool moved = next_start < end;
    start_end = end;
    while (next_start < end) resume_idle_fiber();
    for (int i = begin; i < end; i++) {
        Thread& thread = threads[order[i]];
        if (thread.state != State::released) continue;
        moved = true;
        self = order[i];
        visible->thread = indices[self];
        thread.state = State::running;
        resume(thread.fiber);
    }
    return moved;
}

// Returns the position in `order` of the next thread from another warp; in shuffled order usually begin + 1.
int end_of_warp(int begin) {
    int end = begin + 1;
    while (end < thread_count && order[end] / WARP == order[begin] / WARP) end++;
    return end;
}

void run_block() {
    for (uint64_t i = 0; i < running->shared_count; i++)
        memset(reinterpret_cast<char*>(running->shared[i].begin), POISON,
               running->shared[i].end - running->shared[i].begin);
    memset(dynamic_shared, POISON, running->dynamic_shared);
    next_start = exited_count = 0;
    memset(waiting, 0, sizeof waiting);
    while (exited_count < thread_count) {
        bool moved = false;
        arrange(order, thread_count);
        for (int begin = 0, end; begin < thread_count; begin = end) {
            end = end_of_warp(begin);
            while (advance(begin, end)) moved = true;
        }
        if (!moved) open_barrier();
    }
}

// Records where the running thread waits; a mask of 0 means the whole block.
void wait(const char* name, Place place, unsigned mask) {
    Thread& thread = threads[self];
    thread.state = State::waiting;
    thread.name = name;
    thread.place = place;
    thread.mask = mask;
}

// Returns whether all lanes of the mask, which are waiting, called the same function with the same mask.
bool all_call(int first, const char* name, unsigned mask) {
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1 && (threads[first + i].name != name || threads[first + i].mask != mask)) return false;
    return true;
}

// Gives every lane of the mask the value that it receives, and releases it.
void exchange(int first, unsigned mask) {
    unsigned votes = 0;
    for (int i = 0; i < WARP; i++) votes |= (mask >> i & 1 && threads[first + i].value) << i;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        Thread& lane = threads[first + i];
        bool known = lane.source >= 0 && lane.source < WARP && mask >> lane.source & 1;
        lane.received = known ? threads[first + lane.source].value : ~uint64_t(0);
        lane.ballot = votes;
        lane.state = State::released;
    }
}

}  // namespace

extern "C" {

char* cuda_on_cpu_dynamic_shared() { return dynamic_shared; }

int cuda_on_cpu_lane() { return self % WARP; }

void cuda_on_cpu_barrier(Place place) {
    wait("__syncthreads()", place, 0);
    suspend();
}

// A shuffle, a vote or __syncwarp: the last lane of `mask` to arrive exchanges the values of all.
uint64_t cuda_on_cpu_warp(const char* name, Place place, unsigned mask, uint64_t value, int source,
                          unsigned* ballot) {
    int lane = self % WARP, first = self - lane;
    Thread& thread = threads[self];
    if (!(mask >> lane & 1)) fail(place, "%s with mask 0x%08x, which does not include the calling thread", name, mask);
    wait(name, place, mask);
    thread.value = value;
    thread.source = source;
    unsigned& arrived = waiting[first / WARP];
    arrived |= 1u << lane;
    if ((arrived & mask) == mask && all_call(first, name, mask)) {
        arrived &= ~mask;
        exchange(first, mask);
    }
    suspend();
    *ballot = thread.ballot;
    return thread.received;
}

int cuda_on_cpu_run(Launch* launch) {
    running = launch;
    visible = launch->visible;
    forget_regions();
    visible->block_size = launch->block;
    visible->grid_size = launch->grid;
    memcpy(visible->arguments, launch->arguments, 8 * launch->argument_count);
    thread_count = launch->block.x * launch->block.y * launch->block.z;
    for (int t = 0; t < thread_count; t++) indices[t] = index_of(t, launch->block);
    random_state = 1;
    int failed = _setjmp(failure);
    if (!failed) {
        static std::vector<int> blocks;
        blocks.resize(size_t(launch->grid.x) * launch->grid.y * launch->grid.z);
        arrange(blocks.data(), blocks.size());
        for (int block : blocks) {
            visible->block = index_of(block, launch->grid);
            run_block();
        }
    } else {
        abandon_fibers();
    }
    running = nullptr;
    return failed;
}

}
