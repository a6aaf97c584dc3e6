"""A deep-learning engine small enough to read: arrays in, gradients out, on NumPy or CuPy."""

from minidl.tensor import Function, Parameter, Tensor, no_grad

__all__ = ["Function", "Parameter", "Tensor", "no_grad"]
