"""The node daemon: supervises the processes of one host and announces them to lookupd."""
