"""The structures of `launch.h` as ctypes, field by field; `launch.h` explains the fields."""

import ctypes
from ctypes import POINTER, Structure, c_char, c_char_p, c_int32, c_uint32, c_uint64, c_void_p


class Memory(Structure):
    _fields_ = [("begin", c_uint64), ("end", c_uint64)]


class Shared(Structure):
    _fields_ = [("begin", c_uint64), ("end", c_uint64), ("red_zone_end", c_uint64), ("used", c_uint64)]


class Place(Structure):
    _fields_ = [("file", c_char_p), ("line", c_int32), ("column", c_int32)]


class Variable(Structure):
    _fields_ = [
        ("begin", c_uint64),
        ("size", c_uint64),
        ("size_with_red_zone", c_uint64),
        ("name", c_char_p),
        ("file", c_char_p),
        ("has_constructor", c_uint64),
        ("place", POINTER(Place)),
        ("unused", c_uint64),
    ]


class Launch(Structure):
    _fields_ = [
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("order", c_int32),
        ("argument_count", c_int32),
        ("dynamic_shared", c_uint64),
        ("arguments", c_char_p),
        ("memory", POINTER(Memory)),
        ("memory_count", c_uint64),
        ("shared", POINTER(Shared)),
        ("shared_count", c_uint64),
        ("body", c_void_p),
        ("visible", c_void_p),
        ("image", Memory),
        ("failed_block", c_uint32 * 3),
        ("failed_thread", c_uint32 * 3),
        ("place", Place),
        ("instruction", c_uint64),
        ("address", c_uint64),
        ("message", c_char * 400),
    ]


def variables(library: ctypes.CDLL) -> list[Variable]:
    """Return g++'s records of the static variables in a loaded library, including the `__shared__` arrays."""
    count = c_uint64()
    library.cuda_on_cpu_variables.restype = POINTER(Variable)
    return library.cuda_on_cpu_variables(ctypes.byref(count))[: count.value]
