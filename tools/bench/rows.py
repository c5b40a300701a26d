"""Where a token's time goes: runs a model's plan row by row and adds up the time of each kernel.

    python tools/bench/rows.py MODEL [-t THREADS] [-p TOKENS] [-d DEPTH] [--reference] [--kv TYPE]

Rows are timed one by one (each with the cost of waking the team, about 1-2 us, which ``post`` at the end shows), so the
sum is larger than a real run's time; the shares are what counts. With ``-p 1`` it is decoding, else prefill.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np

import ggblock
from ggblock import models
from ggblock.engine import plan as plan_module
from ggblock.kernels import fields


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("-t", type=int, default=None)
    ap.add_argument("-p", type=int, default=1)
    ap.add_argument("-d", type=int, default=0)
    ap.add_argument("-r", type=int, default=5)
    ap.add_argument("--reference", action="store_true")
    ap.add_argument("--kv", default=None)
    ap.add_argument("--activations", default=None)
    a = ap.parse_args()
    names: dict[int, str] = {}
    real = plan_module.kernels

    def remember(wanted, notify=None):  # type: ignore[no-untyped-def]
        found = real(wanted, notify)
        names.update({v: k for k, v in found.items()})
        return found

    plan_module.kernels = remember
    with ggblock.open(a.model) as f:
        m = models.build(
            f,
            threads=a.t,
            reference=a.reference,
            kv_type=a.kv,
            activations=a.activations,
            notify=print,
            context=max(1024, a.d + a.p + 1),
        )
        ids = np.arange(a.d + a.p) % 1000 + 10
        m.forward(ids, 0)
        layer = m._last_layer  # what ``Model.forward`` runs for logits after the last token
        passes = [(layer.step, 1, a.d)] if a.p == 1 else [(layer.until, a.p, a.d), (layer.alone, 1, a.d + a.p - 1)]
        spent: dict[str, list[float]] = defaultdict(list)
        whole = []
        for _ in range(a.r):
            start = time.perf_counter()
            m.forward(ids[a.d :], a.d)
            whole.append(time.perf_counter() - start)
            total: dict[str, float] = defaultdict(float)
            for plan, n, at in passes:
                plan.state[fields.N_TOKENS], plan.state[fields.POSITION] = n, at
                for i in range(len(plan.rows)):
                    start = time.perf_counter()
                    plan._team.run(plan.rows.ctypes.data + 8 * fields.ROW * i, 1)
                    name = names[int(plan.rows[i, 0])]
                    if name.startswith("matmul"):
                        name += f" {plan.rows[i, fields.A + 1] * 16}x{plan.rows[i, fields.A + 2]} blocks"
                    total[name] += time.perf_counter() - start
            for name, value in total.items():
                spent[name].append(value)
        medians = {name: float(np.median(v)) for name, v in spent.items()}
        everything = sum(medians.values())
        for name, value in sorted(medians.items(), key=lambda item: -item[1]):
            print(f"{value * 1e3:9.3f} ms {value / everything:6.1%}  {name}")
        print(f"{everything * 1e3:9.3f} ms         all rows; a real pass takes {np.median(whole) * 1e3:.3f} ms")
        m.close()


if __name__ == "__main__":
    main()
