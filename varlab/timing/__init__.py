"""Timing: where time and memory go, and what a run will take."""
