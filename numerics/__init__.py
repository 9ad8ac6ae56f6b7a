"""Real FP8 numerics and the calibration of costs; torch and triton live only here, and only where a kernel runs."""
