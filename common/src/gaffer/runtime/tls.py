"""TLS contexts of clients, and explanations of TLS errors."""

import ssl
from collections.abc import Mapping
from typing import Any

# OpenSSL's reasons, explained: `it` is the peer. Alerts are sent by the peer and concern this end.
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it presented no certificate, but one is required",
    "HTTP_REQUEST": "it sent plain HTTP",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of the certificate presented to it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate presented to it",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate presented to it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate presented to it has expired",
}

# Connections that ended at any point.
_ENDS = frozenset(("UNEXPECTED_EOF_WHILE_READING",))


def explain(error: BaseException | None) -> str | None:
    """Return why the handshake failed, as a clause such as `it presented no certificate, but one is required`.

    None for errors unrelated to TLS, and for connections that just ended.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was rejected: {error.verify_message.rstrip('.')}"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    reason = error.reason or str(error)
    return None if reason in _ENDS else _REASONS.get(reason) or reason.replace("_", " ").lower()


def parse_ssl_options(client_options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return a TLS client context from `validate_cert` (default true), `ca_certs`, `client_cert` and `client_key`.

    Raises OSError (including ssl.SSLError) if a file can't be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=client_options.get("ca_certs"))
    if not client_options.get("validate_cert", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := client_options.get("client_cert"):
        context.load_cert_chain(certificate, client_options.get("client_key"))
    return context
