"""TLS contexts of clients, and what went wrong with TLS as the end of a sentence."""

import ssl
from collections.abc import Mapping
from typing import Any

# What OpenSSL calls it, and what it means: `it` is the other end. An alert is what the other end says of this one.
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and one is needed here",
    "HTTP_REQUEST": "it spoke plain HTTP",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of the certificate that it was shown",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate that it was shown",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate that it was shown",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate that it was shown has expired",
}

# The end of a connection, in the middle of whatever it was doing.
_ENDS = frozenset(("UNEXPECTED_EOF_WHILE_READING",))


def explain(error: BaseException | None) -> str | None:
    """Why one end did not want the other, as the end of a sentence: `it showed no certificate, and one is needed here`.

    None for an error of another kind, and for a connection that just ended.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    reason = error.reason or str(error)
    return None if reason in _ENDS else _REASONS.get(reason) or reason.replace("_", " ").lower()


def parse_ssl_options(client_options: Mapping[str, Any]) -> ssl.SSLContext:
    """A TLS client context from `validate_cert` (default true), `ca_certs`, `client_cert` and `client_key`.

    Raises OSError (ssl.SSLError is one) when a file can't be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=client_options.get("ca_certs"))
    if not client_options.get("validate_cert", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := client_options.get("client_cert"):
        context.load_cert_chain(certificate, client_options.get("client_key"))
    return context
