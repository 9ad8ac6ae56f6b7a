"""What the timeline says: spans, times, memory, the critical path, intervals; each reads it and none runs anything."""
