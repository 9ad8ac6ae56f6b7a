"""What makes ranks differ: faults, slow NICs, expert loads, documents, jitter; and how long segments then take."""
