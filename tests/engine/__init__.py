"""Kernels on the disk, the thread team, and plans."""
