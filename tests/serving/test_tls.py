"""Encrypted connections against real TLS servers: trusted, untrusted and asked for a certificate of the client."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.client import TargetError, Tls, connect
from serving.messages import array_to_tensor, message
from signatures.errors import UsageError

x509 = pytest.importorskip("cryptography.x509")


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Files of an authority and of certificates that it signed for `localhost` and for a client."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("pems")
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, signer=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer, signing = (signer[0].subject, signer[1]) if signer else (subject, key)
        builder = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        # Python 3.13 checks certificates strictly: key identifiers and, of an authority, what its key is for.
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        builder = builder.add_extension(issued_by, critical=False)
        if signer is None:
            builder = builder.add_extension(KEY_USAGE, critical=True)
        certificate = builder.sign(signing, hashes.SHA256())
        encoding = serialization.Encoding.PEM
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(encoding))
        (folder / f"{name}.key").write_bytes(key.private_bytes(encoding, *plain))
        return certificate, key

    authority = make("authority")
    make("server", authority)
    make("client", authority)
    make("stranger")
    return {path.name: str(path) for path in folder.iterdir()}


KEY_USAGE = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip
OUTPUTS = {"labels": np.array([[b"a"]], dtype=object), "scores": np.float32([[0.5]])}


@pytest.fixture(params=["grpcs", "https"])
def secure(request, pems):
    """The target of a server that wants a client's certificate."""
    start = _grpc_server if request.param == "grpcs" else _http_server
    port, stop = start(pems)
    yield f"{request.param}://localhost:{port}/m"
    stop()


def test_a_trusted_server_and_client(secure, pems):
    tls = Tls(ca=pems["authority.crt"], cert=pems["client.crt"], key=pems["client.key"])
    with connect(secure, tls=tls, timeout=20) as client:
        assert client.predict(b"x").labels == ("a",)


@pytest.mark.parametrize(
    "names",
    [
        {},  # the system's authorities do not know this one
        {"ca": "stranger.crt", "cert": "client.crt", "key": "client.key"},
        {"ca": "authority.crt"},
        {"ca": "authority.crt", "cert": "stranger.crt", "key": "stranger.key"},
    ],
)
def test_a_stranger_on_either_side_is_refused(secure, pems, names):
    tls = Tls(**{name: pems[file] for name, file in names.items()})
    with connect(secure, tls=tls, retries=0, timeout=20) as client, pytest.raises(TargetError) as caught:
        client.predict(b"x")
    assert caught.value.code == "UNAVAILABLE"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_certificates_that_cannot_be_read(scheme, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        connect(f"{scheme}://localhost:1/m", tls=Tls(ca=str(tmp_path / "missing.crt")))


def _grpc_server(pems):
    def predict(request, context):
        return message("PredictResponse", outputs={name: array_to_tensor(value) for name, value in OUTPUTS.items()})

    handler = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=type(message("PredictRequest")).FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
    server.add_generic_rpc_handlers((service,))
    read = {name: Path(path).read_bytes() for name, path in pems.items()}
    credentials = grpc.ssl_server_credentials(
        [(read["server.key"], read["server.crt"])], read["authority.crt"], require_client_auth=True
    )
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    return port, lambda: server.stop(0)


def _http_server(pems):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"outputs": {"labels": [["a"]], "scores": [[0.5]]}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pems["server.crt"], pems["server.key"])
    context.load_verify_locations(pems["authority.crt"])
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], server.shutdown
