"""The client library of Gaffer and the tools built on it."""
