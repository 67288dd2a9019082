"""What Gaffer takes from sockjs-tornado. The other modules get it here."""

import warnings

with warnings.catch_warnings():
    # It uses a decorator of its own that is deprecated, and has an escape in a string that newer Pythons complain of.
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
