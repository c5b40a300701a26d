"""The kernels against naive twins in NumPy. Every tolerance is derived where it stands; EPS is float32's rounding."""
