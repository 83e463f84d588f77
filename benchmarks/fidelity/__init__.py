"""Parts of ``benchmarks/fidelity.py``: models whose ratio is known, and other ways to time one."""
