// What the parts of the runtime know of each other: blocks.cpp runs threads on fibers, checks.cpp watches them.

#pragma once
#include "launch.h"

// blocks.cpp
struct Fiber;
extern Launch* running;  // null between launches
void run_threads(Fiber* fiber);
Memory dynamic_shared_memory();
[[noreturn]] void fail(int line, const char* format, ...);  // ends the launch

// fibers.cpp
void resume_idle_fiber();    // lets a fiber call run_threads, and returns when it has or must wait
void resume(Fiber* fiber);   // lets one that waits go on
void suspend();              // called on a fiber: go back to who resumed it
void abandon_fibers();       // after a failure: all begin anew
Memory stack_of_thread();

// checks.cpp
void forget_regions();
