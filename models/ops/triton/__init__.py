"""Kernels in Triton, each beside the file of `models.ops` of the same name; imported only where they are used.

They run on a CPU too, slowly, in Triton's interpreter: with TRITON_INTERPRET=1 in the environment.
"""
