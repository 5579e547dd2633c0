"""The parts of the benchmark: building, running, accounting, judging, reporting."""
