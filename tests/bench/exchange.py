"""CPU seconds of one exchange of 64 ranks at DeepSeek-V3's size as events: `python -m tests.bench.exchange`.

Beside a bare SimPy loop of timeouts, and as on a machine whose loop does REFERENCE timeouts a second (the design's
figure). Even loads take one rank that stands for all; whole: all 64 ranks, which loads that differ need.
"""

import time
from statistics import median

from sim.communication.exchange.events.cargo import even
from sim.communication.exchange.events.group import run
from sim.communication.exchange.events.setting import Setting
from sim.communication.exchange.ports import even_tokens
from tests.bench.runs import REFERENCE, loop_rate
from tests.sim.communication.exchange.exchanges import LINKS, cargo_of_tokens, op

ROUNDS, MOST = 3, 3.0
SMS = 20


def main():
    for direction in ("dispatch", "combine"):
        one = op(direction, 64, 4096)
        whole = cargo_of_tokens(direction, one.row_bytes, one.tokens, *even_tokens(one))
        for name, cargo in (("one rank for all", even(one)), ("all 64 ranks", whole)):
            spent, rates = [], []
            for _ in range(ROUNDS):
                rates.append(loop_rate())
                start = time.process_time()
                run([cargo], Setting(LINKS, SMS))
                spent.append(time.process_time() - start)
            at = median(spent) * median(rates) / REFERENCE
            print(f"{direction:9} {name:18} {median(spent):6.2f} s  {at:6.2f} s at reference (most {MOST})")


if __name__ == "__main__":
    main()
