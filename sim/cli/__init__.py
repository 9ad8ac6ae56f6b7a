"""Command lines: words to calls, output folders, exit codes."""
