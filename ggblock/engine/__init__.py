"""The engine: plans as data, the thread team that walks them, weights in panels, and compiled kernels.

``store``   kernels by name: from the cache or compiled, then as addresses
``team``    the threads
``memory``  aligned buffers
``weights`` tensors of a file as panels
``plan``    rows of a plan, and the builder that models use

Importing this package imports none of them. None of them imports Numba until a kernel must be compiled.
"""
