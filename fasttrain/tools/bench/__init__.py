"""Throughput benchmarks, side by side with the peers that are installed."""
