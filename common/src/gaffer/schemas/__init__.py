"""The documents that cross a wire, as types: requests, responses, frames and messages of the lookup protocol. Pure.

Servers encode them, clients decode them, and the descriptions of the APIs are made from them.
"""
