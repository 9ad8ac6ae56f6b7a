"""What a step is inside: parts on streams, kernels priced, and when they start and end."""
