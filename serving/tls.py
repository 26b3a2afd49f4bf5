"""TLS for both doors, from the PEM texts of an SSLConfig."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from signatures.errors import VitrinaError

__all__ = ["Tls", "credentials", "ssl_context"]


@dataclass(frozen=True)
class Tls:
    """What an SSLConfig says; all in PEM.

    Args:
        key: The server's private key.
        certificate: The server's certificate chain.
        ca: The certificates that clients are verified with; empty for the system's.
        verify_clients: Whether clients have to show a certificate.
    """

    key: bytes
    certificate: bytes
    ca: bytes = b""
    verify_clients: bool = False


def credentials(tls: Tls) -> Any:
    """For a gRPC server, which does not look at them before it listens."""
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)],
        root_certificates=tls.ca or None,
        require_client_auth=tls.verify_clients,
    )


def ssl_context(tls: Tls) -> ssl.SSLContext:
    """For an HTTP server.

    Raises:
        VitrinaError: The texts are no keys and certificates, or do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only; this one is ours alone
        file = Path(folder, "chain.pem")
        file.touch(mode=0o600)
        file.write_bytes(tls.key.rstrip() + b"\n" + tls.certificate)
        try:
            context.load_cert_chain(file)
        except ssl.SSLError as error:
            raise VitrinaError(f"The SSLConfig's server_key and server_cert do not fit ({error}). Give PEM.") from error
    if tls.ca:
        try:
            context.load_verify_locations(cadata=tls.ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise VitrinaError(f"The SSLConfig's custom_ca is no certificate ({error}). Give PEM.") from error
    if tls.verify_clients:
        context.verify_mode = ssl.CERT_REQUIRED
        if not tls.ca:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context
