// Declarations shared by blocks.cpp (runs threads on fibers), fibers.cpp and checks.cpp (checks memory accesses).

#pragma once
#include "launch.h"

// blocks.cpp
struct Fiber;
extern Launch* running;  // null between launches
void run_threads(Fiber* fiber);
Memory dynamic_shared_memory();
[[noreturn]] void fail(Place place, const char* format, ...);  // ends the launch

// fibers.cpp
void resume_idle_fiber();    // runs run_threads on an idle fiber until it returns or must wait
void resume(Fiber* fiber);   // resumes a waiting fiber
void suspend();              // called on a fiber: returns to the code that resumed it
void abandon_fibers();       // after a failure: resets all fibers
Memory stack_of_thread();

// checks.cpp
void forget_regions();
