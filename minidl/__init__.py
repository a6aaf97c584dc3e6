"""A small deep-learning engine, written to be read: tensors, gradients and layers on NumPy or CuPy."""

from minidl.tensor import Function, Parameter, Tensor, no_grad

__all__ = ["Function", "Parameter", "Tensor", "no_grad"]
