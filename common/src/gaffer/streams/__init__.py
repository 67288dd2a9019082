"""Output, input and events in motion: rings and cursors, pipes, log files and their rotation."""
