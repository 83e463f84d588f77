"""Quantization by Accel and by its peers: what ``benchmarks/quantization.py`` consists of."""
