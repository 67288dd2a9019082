"""The dashboard that both daemons serve at `/ui/`: its files in `static`, and how they are served.

The files hold no data. The pages use the public API, with the access rules of any other page.
"""
