"""Types of all documents sent over the network: requests, responses, frames and lookup protocol messages. No I/O.

Servers encode them, clients decode them, and the OpenAPI documents are generated from them.
"""
