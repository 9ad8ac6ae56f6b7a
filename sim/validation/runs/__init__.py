"""Published training runs: a row of a CSV file to a scenario, simulated, beside what was measured."""
