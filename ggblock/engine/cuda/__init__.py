"""Running rows of a plan on an NVIDIA GPU, in Python: kernels that Numba compiles for the device.

**What runs.** The rows are those of every plan (``engine.plan``): ``norm``, ``gate`` and ``copy`` (which write
activations), ``matmul``, ``rope``, ``attention`` and ``combine``. Models write them as always. ``plan.MixedBuilder``
notes where each row runs, as ``engine.placement`` decided; ``steps`` turns a device's row into launches. A row's float
buffers, weights and caches are named by the host arrays in it; ``steps.Memory`` keeps an array on the device for each.

**One description of a block type.** Weights lie on the device as panels of 16 rows, as in the engine and in ``.ggb``
files, and ``kernels/q4_k.py`` and its like describe them for the device too: where the CPU holds 16 rows in a vector,
the device has 16 threads (``lanes``). No block type has a second description.

**One token**: weights are read once and multiplied as they are, in integer dot products with activations in two terms
of int8 (``products``). All launches of a token are captured once as a CUDA graph. **Many tokens**: a range of panels is
written out as bfloat16 and multiplied by cuBLAS (``gemm``); without it, integer products of eight tokens at a time.

**Boundaries.** Before a run of rows, float rows that it reads and that were last written elsewhere are copied. Between
layers that is one hidden state for each token. KV caches stay where their layers run. Embeddings are looked up and
tokens are chosen on the CPU.

``jit`` compiles (the only caller of Numba's CUDA decorators), ``words`` has the instructions that Numba lacks,
``device`` memory, copies and graphs, ``upload`` the weights' way there, ``start`` the way from ``offload`` to all that.

**Without a GPU** everything here runs in Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``): that is how it is tested.
Importing this package imports nothing; its modules import Numba and are only imported when something is offloaded.
"""
