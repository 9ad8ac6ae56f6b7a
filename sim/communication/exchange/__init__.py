"""One expert exchange at three fidelities: closed form, messages by port, and the warp-specialised kernel.

`closed` is the bandwidth bound: the largest port load of each rank. `messages` moves rows through first-in-first-out
ports. `kernel` runs chunks through channels of two SMs, whose warps copy at a finite rate, with bounded buffers. None
of them is below the bound. `direct` is the low-latency kernel of decoding, `offload` holds what-ifs without SMs.
"""
