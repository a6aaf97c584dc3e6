// Fibers: functions that stop in the middle, let others run, and go on where they were.
//
// Each has a stack of its own. To stop is to put the processor's registers aside, and to go on is to take them up
// again: one of them points to the stack. A fiber that has come to its end without waiting takes up the next thread
// on the same stack, so a kernel without barriers is a plain loop over its threads.
//
// makecontext starts a fiber; from then on _setjmp and _longjmp switch, thirty times faster than swapcontext, which
// asks the operating system for the signal mask at every switch.

#include <csetjmp>
#include <sys/mman.h>
#include <ucontext.h>

#include "runtime.h"

struct Fiber {
    jmp_buf place;
    ucontext_t start;
    bool started;
};

namespace {

constexpr int COUNT = 1024;  // as many as a block has threads
// Not a power of two: a processor's cache would keep the same few of its lines for the tops of all stacks.
constexpr size_t STACK_BYTES = (128 << 10) + 13 * 64;

Fiber fibers[COUNT];
Fiber* idle[COUNT];
int idle_count = -1;
Fiber* current;
jmp_buf scheduler;

char* stack_of(Fiber* fiber) {
    // Memory that is only reserved: it becomes real page by page as it is used.
    static void* stacks = mmap(nullptr, COUNT * STACK_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) fail(0, "no memory for the stacks of %d threads", COUNT);
    return static_cast<char*>(stacks) + (fiber - fibers) * STACK_BYTES;
}

void live() {
    for (;;) {
        run_threads(current);
        idle[idle_count++] = current;
        suspend();
    }
}

}  // namespace

void abandon_fibers() {
    idle_count = 0;
    for (int i = COUNT - 1; i >= 0; i--) {
        fibers[i].started = false;
        idle[idle_count++] = &fibers[i];
    }
}

void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    setcontext(&fiber->start);
}

void suspend() {
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

void resume_idle_fiber() {
    if (idle_count < 0) abandon_fibers();
    Fiber* fiber = idle[--idle_count];
    if (!fiber->started) {
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = stack_of(fiber);
        fiber->start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&fiber->start, live, 0);
    }
    resume(fiber);
}

Memory stack_of_thread() {
    uint64_t stack = uint64_t(stack_of(current));
    return {stack, stack + STACK_BYTES};
}
