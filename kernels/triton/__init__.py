"""Kernels for NVIDIA GPUs, in Triton; beside this folder lies their plain reference.

`TRITON_INTERPRET=1` in the environment, before they are imported, runs them on a CPU.
"""
