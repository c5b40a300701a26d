"""Compute kernels: what a plan's rows call.

Every kernel has one signature, ``kernel(op, thread, n_threads)``: ``op`` is the address of its row in the plan
(``fields`` names the columns), and the work is split by thread inside the kernel. A kernel is named by a path such as
``matmul/q4_k/1/2``; ``registry`` maps the first part to the factory that makes the Numba function.

One file per block family holds how its codes and scales are unpacked (same basename as in ``blocks/``); ``matmul``
turns that description into code. Importing this package imports nothing else.
"""
