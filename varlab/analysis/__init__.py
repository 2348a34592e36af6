"""Logs and comparisons in, tables out: neither torch nor matplotlib."""
