// Fibers: functions that can be suspended in the middle and resumed later.
//
// Each fiber has its own stack. Suspending a fiber saves the processor's registers, and resuming it restores them; one
// of them points to the stack. A fiber whose thread has finished without waiting runs the next thread on the same
// stack, so a kernel without barriers is a plain loop over its threads.
//
// makecontext starts a fiber. Later switches use _setjmp and _longjmp, which are thirty times faster than swapcontext,
// because swapcontext asks the operating system for the signal mask at every switch.

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

constexpr int COUNT = 1024;  // the maximum number of threads in a block
// Not a power of two: otherwise the tops of all stacks would compete for the same few cache lines.
constexpr size_t STACK_BYTES = (128 << 10) + 13 * 64;

Fiber fibers[COUNT];
Fiber* idle[COUNT];
int idle_count = -1;
Fiber* current;
jmp_buf scheduler;

char* stack_of(Fiber* fiber) {
    // Only reserved: the system provides the memory page by page when it is used.
    static void* stacks = mmap(nullptr, COUNT * STACK_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) fail({}, "no memory for the stacks of %d threads", COUNT);
    return static_cast<char*>(stacks) + (fiber - fibers) * STACK_BYTES;
}

void fiber_main() {
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
        makecontext(&fiber->start, fiber_main, 0);
    }
    resume(fiber);
}

Memory stack_of_thread() {
    uint64_t stack = uint64_t(stack_of(current));
    return {stack, stack + STACK_BYTES};
}
