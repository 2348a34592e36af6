"""Studies: what papers leave open, measured: calibration, early exits."""
