"""Logins of web pages: the exchange of a key for a cookie and a token, on both daemons."""
