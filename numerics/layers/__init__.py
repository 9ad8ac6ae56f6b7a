"""Model layers on the FP8 operations: MLA, DeepSeekMoE, multi-token prediction, and a model assembled from them.

Modules hold FP32 master weights and compute in the precision of their Config; each autograd function is written by
hand, so that what waits for the backward pass is exactly what it saves: DeepSeek-V3's recompute (arXiv 2412.19437 sec
3.2.3 and 3.3.3) is visible in the code and counted by a test.
"""
