"""One OS process and its tree: launch, identity, end, resource usage.

Here: everything that talks to the kernel about processes, groups and control groups. Not here: decisions about when a
process starts or stops (`gaffer.jobs`), and its output (`gaffer.streams`).
"""
