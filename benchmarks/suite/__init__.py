"""What the benchmarks are made of; `run.py` puts it together."""
