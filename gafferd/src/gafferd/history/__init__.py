"""The history of a node: who changed what, and what happened to its jobs, in files of bounded size."""
