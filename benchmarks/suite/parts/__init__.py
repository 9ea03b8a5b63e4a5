"""The parts of the suite: each has `run(form)` and returns what goes into its result file."""
