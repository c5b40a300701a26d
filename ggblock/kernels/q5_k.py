"""Q5_K: Q4_K with a fifth bit, kept in a field of its own."""
from .q4_k import Q4_K


class Q5_K(Q4_K):
    name = "q5_k"
    max_code = 31

    def numbers(self, e, p, j, up):
        return e.b.or_(self.planes(e, p, "qs", j, up), self.planes(e, p, "qh", j, 4 + up))


FAMILY = Q5_K()
