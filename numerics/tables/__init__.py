"""Calibration tables: made from what was measured, written, and told where they come from."""
