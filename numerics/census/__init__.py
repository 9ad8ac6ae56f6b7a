"""The census: operations recorded from the real layers beside those that the simulator lowers."""
