"""Workbench for next-scale visual autoregressive image models."""
