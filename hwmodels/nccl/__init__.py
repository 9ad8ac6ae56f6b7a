"""NCCL: which algorithm and protocol it takes for a collective, how long that takes, and on how many SMs.

NCCL chooses by a table of its own (`tuner`, published), which is not always right about what is fastest; how long its
choice then takes is measured (`timing`, fitted to single collectives). `library` is the door.
"""
