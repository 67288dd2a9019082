"""Host support for all programs of Gaffer: startup and signals, logging, usage errors, accounts, sockets, TLS, trusted
files. Independent of jobs.
"""
