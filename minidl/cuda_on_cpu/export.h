// Exports the kernels of a compiled .cu file to Python: CUDA_ON_CPU_EXPORT(name) is appended to the file's text.
//
// C++ templates deduce the parameter types from the kernel itself. `types_name` returns them as a string such as
// "*f4 f4 i4"; `launch_name` unpacks the arguments, eight bytes each, and runs the kernel.

#pragma once
#include "launch.h"

namespace cuda_on_cpu {

const Variable* variables;
uint64_t variable_count;

template <class V> struct Type {
    static void write(char* text) {
        if constexpr (std::is_pointer_v<V>) {
            *text++ = '*';
            Type<std::remove_cv_t<std::remove_pointer_t<V>>>::write(text);
        } else {
            *text++ = std::is_same_v<V, bool> ? 'b' : std::is_floating_point_v<V> ? 'f' :
                      !std::is_integral_v<V> ? '?' : std::is_signed_v<V> ? 'i' : 'u';
            *text++ = sizeof(V) < 10 ? '0' + sizeof(V) : '?';
            *text = 0;
        }
    }
};

template <auto kernel> struct Exported;
template <class... P, void (*kernel)(P...)> struct Exported<kernel> {
    static_assert(8 * sizeof...(P) <= sizeof cuda_on_cpu_visible.arguments, "too many parameters");

    static const char* types() {
        static char text[8 * (sizeof...(P) + 1)];
        char* end = text;
        ((Type<P>::write(end), end += strlen(end), *end++ = ' '), ...);
        *end = 0;
        return text;
    }
    template <size_t... i> static void unpack(std::index_sequence<i...>) {
        kernel(*reinterpret_cast<const P*>(cuda_on_cpu_visible.arguments + 8 * i)...);
    }
    static void body() { unpack(std::index_sequence_for<P...>{}); }
};

}  // namespace cuda_on_cpu

extern "C" {
// The linker's names for the first and last byte of the loaded file. If not hidden, _end would be Python's own.
extern char __ehdr_start[], _end[] __attribute__((visibility("hidden")));

// Called by g++'s instrumentation when the file is loaded.
void __asan_register_globals(const Variable* variables, uint64_t count) {
    cuda_on_cpu::variables = variables;
    cuda_on_cpu::variable_count = count;
}
void __asan_unregister_globals(const Variable*, uint64_t) {}
}

#define CUDA_ON_CPU_EXPORTED extern "C" __attribute__((visibility("default")))

CUDA_ON_CPU_EXPORTED const Variable* cuda_on_cpu_variables(uint64_t* count) {
    *count = cuda_on_cpu::variable_count;
    return cuda_on_cpu::variables;
}

#define CUDA_ON_CPU_KERNELS(text)                                                                               \
    CUDA_ON_CPU_EXPORTED const char* cuda_on_cpu_kernels() { return text; }

#define CUDA_ON_CPU_EXPORT(name)                                                                                \
    CUDA_ON_CPU_EXPORTED const char* types_##name() { return cuda_on_cpu::Exported<name>::types(); }            \
    CUDA_ON_CPU_EXPORTED int launch_##name(Launch* launch) {                                                    \
        launch->body = cuda_on_cpu::Exported<name>::body;                                                       \
        launch->visible = &cuda_on_cpu_visible;                                                                 \
        launch->image = {uint64_t(__ehdr_start), uint64_t(_end)};                                               \
        return cuda_on_cpu_run(launch);                                                                         \
    }
