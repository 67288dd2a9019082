"""The parts of sockjs-tornado that Gaffer uses; other modules import them from here."""

import warnings

with warnings.catch_warnings():
    # It uses its own deprecated decorator, and a string escape that newer versions of Python warn about.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    from sockjs.tornado import SockJSConnection, SockJSRouter, proto
    from sockjs.tornado.session import CLOSED, CONNECTING, OPEN, BaseSession, Session
    from sockjs.tornado.static import IFRAME_TEXT
    from sockjs.tornado.transports.base import BaseTransportMixin
    from sockjs.tornado.transports.eventsource import EventSourceTransport
    from sockjs.tornado.transports.xhr import XhrPollingTransport
    from sockjs.tornado.transports.xhrstreaming import XhrStreamingTransport

__all__ = [
    "CLOSED",
    "CONNECTING",
    "IFRAME_TEXT",
    "OPEN",
    "BaseSession",
    "BaseTransportMixin",
    "EventSourceTransport",
    "Session",
    "SockJSConnection",
    "SockJSRouter",
    "XhrPollingTransport",
    "XhrStreamingTransport",
    "proto",
]
