"""Naive twins: the same models and kernels in plain NumPy, written without reading the fast code."""
