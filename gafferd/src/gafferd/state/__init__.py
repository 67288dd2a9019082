"""The state directory: crash-safe documents, the lock, the identity of the node, and leftover processes."""
