"""Kernels for NVIDIA GPUs, in Triton. Their plain references lie beside this folder; `TRITON_INTERPRET=1` runs them on a CPU."""
