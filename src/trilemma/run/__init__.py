"""Run folders: their names, locks, configuration, weights, checkpoints and log; and the run that is read from one."""
