"""What every program of Gaffer needs of its host: start and signals, log, usage errors, accounts, sockets, TLS, trusted
files. Nothing here knows jobs.
"""
