"""Jobs: their config and their state machines. Pure: no I/O, and the time is an argument.

Here: the config of a job and the rules of its settings, names, the state machines of jobs and slots, their events and
instructions. Not here: anything that starts, signals or reads a process.
"""
