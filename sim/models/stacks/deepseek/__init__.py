"""DeepSeek's stack: kernels in the order, by the names and with the fusions of its published H800 profile."""
