// Runs the threads of a CUDA launch, one block after the other, each thread on a fiber (fibers.cpp).
//
// Threads take turns in one thread of the processor. One runs until it must wait for others, at __syncthreads() or
// in a shuffle, and only then the next one does. When none can go on, the barrier opens, if all have come to it.
//
// Each order lets some threads run far ahead of others, as a GPU may. Forward and in reverse, a warp goes on through
// its shuffles to the next barrier before another warp takes its turn: if it comes back there to a shared array that
// others have still to read, and no barrier holds it up, they read the wrong numbers, and somebody notices.

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

enum class State { running, waiting, released, left };

struct Thread {
    State state;
    Fiber* fiber;
    // Where it waits, and what it brings to a shuffle and takes from it.
    const char* name;
    int line, source;
    unsigned mask, ballot;
    uint64_t value, received;
};

Thread threads[MAX_THREADS];
uint3 indices[MAX_THREADS];            // of each thread: its threadIdx
int order[MAX_THREADS];                // in which they run
unsigned waiting[MAX_THREADS / WARP];  // for each warp, the lanes that wait in a shuffle
int self, thread_count, left_count;
int next_start, start_end;             // positions in `order`: who has not begun, and who is not to begin yet
unsigned random_state;

Visible* visible;
jmp_buf failure;
alignas(16) char dynamic_shared[MAX_SHARED];

uint3 index_of(unsigned i, uint3 size) { return {i % size.x, i / size.x % size.y, i / size.x / size.y}; }

}  // namespace

// Leaves the kernel in the middle: every fiber starts afresh in the next launch.
[[noreturn]] void fail(int line, const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(running->message, sizeof running->message, format, values);
    va_end(values);
    running->line = line;
    running->failed_block = visible->block;
    running->failed_thread = visible->thread;
    _longjmp(failure, 1);
}

Memory dynamic_shared_memory() {
    uint64_t begin = uint64_t(dynamic_shared);
    return {begin, begin + running->dynamic_shared};
}

// What every fiber does: take up the next thread that has not begun, as long as there is one that may.
void run_threads(Fiber* fiber) {
    while (next_start < start_end) {
        int t = self = order[next_start++];
        visible->thread = indices[t];
        threads[t].state = State::running;
        threads[t].fiber = fiber;
        running->body();
        threads[t].state = State::left;
        left_count++;
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

const char* who(int t) {
    static char written[48];
    uint3 i = indices[t];
    if (t < thread_count) snprintf(written, sizeof written, "thread (%u, %u, %u)", i.x, i.y, i.z);
    else snprintf(written, sizeof written, "lane %d", t % WARP);
    return written;
}

const char* whereabouts(int t) {
    static char written[128];
    if (t >= thread_count) return "is not in the block";
    if (threads[t].state == State::left) return "has left the kernel";
    snprintf(written, sizeof written, "waits at %s of line %d", threads[t].name, threads[t].line);
    return written;
}

// Called when no thread can go on: the barrier opens if all have come to it.
void open_barrier() {
    int first = -1;
    for (int t = 0; t < thread_count; t++) {
        Thread& thread = threads[t];
        if (thread.state != State::waiting || !thread.mask) continue;
        visible->thread = indices[t];
        for (int i = 0; i < WARP; i++) {
            int other = t / WARP * WARP + i;
            bool here = other < thread_count && threads[other].state == State::waiting &&
                        threads[other].name == thread.name && threads[other].mask == thread.mask;
            if (thread.mask >> i & 1 && !here)
                fail(thread.line, "%s with mask 0x%08x waits for %s, which %s", thread.name, thread.mask,
                     who(other), whereabouts(other));
        }
    }
    for (int t = 0; t < thread_count && first < 0; t++)
        if (threads[t].state == State::waiting) first = t;
    visible->thread = indices[first];
    for (int t = 0; t < thread_count; t++)
        if (threads[t].state == State::left || threads[t].line != threads[first].line)
            fail(threads[first].line, "__syncthreads() waits for all threads of the block, but %s %s", who(t),
                 whereabouts(t));
    for (int t = 0; t < thread_count; t++) threads[t].state = State::released;
}

// Lets threads begin or go on, those at order[begin] to order[end - 1], each until it must wait for others.
// Returns whether one of them could.
bool go_on(int begin, int end) {
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

// Returns where in `order` the threads of another warp follow. Shuffled, that is mostly at the next thread.
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
    next_start = left_count = 0;
    memset(waiting, 0, sizeof waiting);
    while (left_count < thread_count) {
        bool moved = false;
        arrange(order, thread_count);
        for (int begin = 0, end; begin < thread_count; begin = end) {
            end = end_of_warp(begin);
            while (go_on(begin, end)) moved = true;
        }
        if (!moved) open_barrier();
    }
}

// Notes where the running thread waits; a mask of 0 stands for the whole block.
void wait(const char* name, int line, unsigned mask) {
    Thread& thread = threads[self];
    thread.state = State::waiting;
    thread.name = name;
    thread.line = line;
    thread.mask = mask;
}

// Returns whether the lanes of the mask, which all wait, have called the same function with the same mask.
bool all_call(int first, const char* name, unsigned mask) {
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1 && (threads[first + i].name != name || threads[first + i].mask != mask)) return false;
    return true;
}

// Hands every lane of the mask what it is to receive, and lets it go on.
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

void cuda_on_cpu_barrier(int line) {
    wait("__syncthreads()", line, 0);
    suspend();
}

// A shuffle, a vote or __syncwarp: the last lane of `mask` to come hands every lane what it is to receive.
uint64_t cuda_on_cpu_warp(const char* name, int line, unsigned mask, uint64_t value, int source,
                          unsigned* ballot) {
    int lane = self % WARP, first = self - lane;
    Thread& thread = threads[self];
    if (!(mask >> lane & 1)) fail(line, "%s with mask 0x%08x, which does not name the thread itself", name, mask);
    wait(name, line, mask);
    thread.value = value;
    thread.source = source;
    unsigned& here = waiting[first / WARP];
    here |= 1u << lane;
    if ((here & mask) == mask && all_call(first, name, mask)) {
        here &= ~mask;
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
