"""Run directories and checkpoints: where a run's files live, and how they get there unharmed."""
