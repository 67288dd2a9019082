"""One OS process and its tree: launch, identity, exit, resource usage.

This package contains all system calls for processes, process groups and control groups. Decisions about when a process
starts or stops are in `gaffer.jobs`, its output is in `gaffer.streams`.
"""
