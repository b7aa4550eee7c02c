"""Benchmarks: run one with `python -m quadflow.analysis.benchmarks.NAME`."""
