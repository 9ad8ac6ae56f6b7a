"""What makes ranks differ: faults, slow NICs, expert loads, jitter; and how long segments then take."""
