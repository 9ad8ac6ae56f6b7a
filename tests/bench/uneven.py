"""CPU seconds of V3 with ranks that differ, beside limits that are meant to be generous.

    python tests/bench/uneven.py

Runs sampled routing (2,048 different ranks) and one straggler, numbers alone, and exits 1 when either takes too long.
"""

import sys
from pathlib import Path
from time import process_time

import sim
from sim.scenario import load

SCENARIO = Path(__file__).parents[2] / "scenarios" / "v3_2048gpu.yaml"
LIMITS_S = {"routing=sampled": 4.0, "faults=[{kind: gpu, at: 700, slower: 1.1}]": 3.0}
"""Override -> CPU seconds, start-up aside."""


def main() -> int:
    late = False
    for override, limit in LIMITS_S.items():
        scenario = load(str(SCENARIO), ["outputs=[result]", override])
        start = process_time()
        step = sim.run(scenario).summary["step_time_s"]
        took = process_time() - start
        late |= took > limit
        print(f"{override}: {took:.2f} s of CPU (limit {limit} s), step {step:.3f} s")
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
