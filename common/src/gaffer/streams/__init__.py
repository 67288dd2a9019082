"""Streams of output, input and events: rings and cursors, pipes, log files and their rotation."""
