"""Measures: pure functions of arrays; every quantity is defined once."""
