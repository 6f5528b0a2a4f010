"""TLS on a connection to an NBD server: its certificates, and what OpenSSL says of failures."""

import os
import socket
import ssl

from blkmig_cli.errors import FailureError, reason
from blkmig_cli.system.nbd_uri import NbdUri
from blkmig_cli.text import escape

#: What is raised where a call would wait, although it may be the opposite one that is waited for.
WOULD_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
WOULD_WRITE = (ssl.SSLWantWriteError,)


def wrapped(peer: socket.socket, uri: NbdUri) -> ssl.SSLSocket:
    """Return ``peer``, which has a timeout, in TLS as ``uri`` says.

    Raises OSError and ValueError where the server and we do not agree, FailureError for unusable
    certificates.
    """
    hostname = uri.tls_hostname or uri.host or "localhost"
    return _context(uri).wrap_socket(peer, server_hostname=hostname)


def reason_of(error: Exception) -> str:
    """Return the message of an error, of OpenSSL's without numbers and places in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return reason(error) if isinstance(error, OSError) else str(error)


def _context(uri: NbdUri) -> ssl.SSLContext:
    """Return what the certificates in the folder of ``uri`` make; raises FailureError."""
    folder = uri.certificates
    try:
        if not folder:
            return ssl.create_default_context()
        context = ssl.create_default_context(cafile=os.path.join(folder, "ca-cert.pem"))
        certificate = os.path.join(folder, "client-cert.pem")
        if os.path.exists(certificate):
            context.load_cert_chain(
                certificate, os.path.join(folder, "client-key.pem"), _no_password
            )
    except OSError as error:
        raise FailureError(
            f"{uri}: the certificates in {escape(folder)}: {reason_of(error)}",
            hint="the folder must have ca-cert.pem, and client-key.pem with client-cert.pem",
        ) from error
    return context


def _no_password() -> str:
    """Return no password for an encrypted key, so that nobody is asked for it at the terminal."""
    return ""
