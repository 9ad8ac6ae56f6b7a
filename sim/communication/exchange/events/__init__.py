"""An exchange as events: the warp-specialised kernels of a whole group, role by role, in SimPy.

Every rank has channels of two SMs, and a channel a process for each of its roles. Dispatch: send (pack and post),
forward, receive. Combine: send, forward (reduce and post), receive (reduce). Chunks of whole rows go from role to role
through buffers of so many rows, and credits come back; NICs and NVLink ports are servers that all channels of a rank
share. It is the authority of this folder: `sim.communication.exchange.kernel` is held equal to it, and shares with it
the figures of `sim.communication.exchange.roles` and nothing that computes.
"""
