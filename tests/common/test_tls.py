"""What is said of TLS that failed, with both ends of real handshakes in memory."""

import datetime
import ssl

import pytest
import trustme

from gaffer.runtime.tls import explain

AUTHORITY, OTHER = trustme.CA(), trustme.CA()
LONG_AGO = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)
SERVER = AUTHORITY.issue_cert("node.example")


def server_context(*, wants_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.configure_cert(context)
    if wants_certificate:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(authority: trustme.CA = AUTHORITY, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "node.example") -> list[str | None]:
    """What the server and the client are told of their errors."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    told: list[str | None] = [None, None]
    for _ in range(4):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                end.read(1)  # TLS 1.3 tells the client of a refusal after its handshake
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                told[number] = told[number] or explain(error)
    return told


def test_a_handshake_that_succeeds() -> None:
    client = client_context(certificate=AUTHORITY.issue_cert("client.example"))
    assert shake_hands(server_context(wants_certificate=True), client) == [None, None]


@pytest.mark.parametrize(
    ("certificate", "server", "client"),
    [
        (None, "it presented no certificate, but one is required", "it requires a certificate"),
        (
            OTHER.issue_cert("client.example"),
            "its certificate was rejected: unable to get local issuer certificate",
            "it does not trust the authority of the certificate presented to it",
        ),
        (
            AUTHORITY.issue_cert("c", not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(1)),
            "its certificate was rejected: certificate has expired",
            "the certificate presented to it has expired",
        ),
    ],
)
def test_certificates_that_a_server_refuses(certificate: trustme.LeafCert | None, server: str, client: str) -> None:
    told = shake_hands(server_context(wants_certificate=True), client_context(certificate=certificate))
    assert told == [server, client]


def test_servers_that_a_client_refuses() -> None:
    told = shake_hands(server_context(), client_context(OTHER))
    assert told[0] == "it does not trust the authority of the certificate presented to it"
    assert told[1] is not None
    assert told[1].startswith("its certificate was rejected: ")
    told = shake_hands(server_context(), client_context(), "other.example")
    assert told[1] == ("its certificate was rejected: Hostname mismatch, certificate is not valid for 'other.example'")


@pytest.mark.parametrize(
    ("side", "heard", "why"),
    [
        ("server", b"GET / HTTP/1.1\r\n\r\n", "it sent plain HTTP"),
        ("client", b"HTTP/1.1 400\r\n", "it does not speak TLS"),
    ],
)
def test_ends_that_do_not_speak_tls(side: str, heard: bytes, why: str) -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(heard)
    if side == "server":
        end = server_context().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    else:
        end = client_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="node.example")
    with pytest.raises(ssl.SSLError) as caught:
        end.do_handshake()
    assert explain(caught.value) == why


def test_what_is_no_refusal_needs_no_words() -> None:
    assert explain(None) is None
    assert explain(ConnectionResetError()) is None
    incoming = ssl.MemoryBIO()
    incoming.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        server_context().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert explain(caught.value) is None
