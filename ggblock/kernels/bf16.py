"""BF16: panel block of 8 columns by 16 rows, the upper half of a float32 each."""
from .families import FloatFamily


class BF16(FloatFamily):
    n_bytes = 16
    in_words = True

    def weights(self, e, p, k):
        from llvmlite import ir
        wide = e.b.zext(e.load(p, k * 32, "i16x16"), ir.VectorType(ir.IntType(32), 16))
        return e.bitcast(e.shl(wide, 16), "f32x16")


FAMILY = BF16()
