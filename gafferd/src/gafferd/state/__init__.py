"""The state directory: documents that survive crashes, the lock, identity, processes of an earlier run."""
