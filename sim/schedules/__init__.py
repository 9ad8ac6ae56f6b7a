"""Pipeline schedules, one a file: `build(shape) -> Program` and `stages(shape) -> int`. The folder is the registry.

A schedule called `name` in a scenario is the file `name.py` here, or in a folder added to this package's `__path__`;
`sim.schedules.program` loads it. `stages` says how many stages there are for any shape, whether or not `build` refuses
it; a schedule whose stages follow from `shape.chunks` (stages a rank) takes `chunks` from a scenario. Closed forms in
the files use the symbols of the DeepSeek-V3 report (arXiv:2412.19437, table 2): F a forward chunk, B a full backward, W
its weight-gradient part, F&B an overlapped pair, PP the stages a micro-batch passes, M the micro-batches.
"""
