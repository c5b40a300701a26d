"""The vector machine: SIMD values inside Numba functions, and what lowers them to each instruction set.

``emit``      emits LLVM IR for vectors of 16 lanes; LLVM splits them where registers are narrower
``machines``  the few operations that differ from one instruction set to the next (the integer dot product)
``vec``       the same operations as Numba intrinsics, so that ordinary Numba functions can hold vectors
``jit``       the only module of ggblock that calls Numba's decorators; turns a kernel into object code
``cache``     object code on disk, keyed by the source of everything it depends on; needs llvmlite, not Numba
``host``      which machine this process runs on; needs llvmlite, not Numba

Importing this package imports none of them.
"""
