"""Q5_K: Q4_K with a fifth bit, kept in a field of its own."""
from .q4_k import Q4_K


class Q5_K(Q4_K):
    name = "q5_k"
    max_code = 31

    def power(self, s):
        return 0

    def codes(self, e, p, s, k):
        j = 32 * s + 4 * k
        return e.b.or_(self.planes(e, p, "qs", j), self.planes(e, p, "qh", j, 4))


FAMILY = Q5_K()
