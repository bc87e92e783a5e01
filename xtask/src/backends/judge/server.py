"""Stands in for two clouds that nobody can run at home: takes OTLP over HTTP at X-Ray's and Cloud Trace's doors, and refuses what
is not authorised as they ask for. Signatures are checked by botocore, tokens by PyJWT; also the instance metadata service of
EC2 (IMDSv2), which hands out the credentials.

    server.py PORT FOLDER    writes FOLDER/google-key.json, then listens

`GET /spans/xray` and `/spans/cloudtrace` give what was taken, as OTLP in JSON, one request a line; `GET /refused` the number of
requests that were not."""

import datetime
import gzip
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import sigv4
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
REGION, ROLE, PROJECT, QUOTA = "eu-central-1", "tracer-role", "shop-project", "billing-project"
SCOPE = "https://www.googleapis.com/auth/trace.append"
EMAIL = "tracer@shop-project.iam.gserviceaccount.com"

aws = Credentials("ASIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), secrets.token_urlsafe(60))
imds_token = secrets.token_urlsafe(30)
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
pem = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
(FOLDER / "google-key.json").write_text(
    json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "key-1",
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"http://127.0.0.1:{PORT}/token",
            "universe_domain": "googleapis.com",
        }
    )
)
taken = {"xray": [], "cloudtrace": []}
refused = []


def xray(headers, url, body, request):
    """Why X-Ray would refuse the request, if it would."""
    if headers.get("x-amz-security-token") != aws.token:
        return "the session token is not the one that the metadata service gave"
    if not sigv4.is_right(aws, REGION, "POST", url, headers, body):
        return "the signature is wrong"
    now = time.time()
    for span in spans(request):
        # X-Ray: the first 32 bits of a trace's id are when it began, at most 30 days ago.
        age = now - int.from_bytes(span.trace_id[:4], "big")
        if not -60 < age < 30 * 24 * 3600:
            return f"trace {span.trace_id.hex()} began {age} s ago"
    return None


def cloudtrace(headers, url, body, request):
    """Why Cloud Trace would refuse the request, if it would."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    try:
        claims = jwt.decode(token, key.public_key(), ["RS256"], options={"require": ["exp", "iat", "iss", "sub"]})
    except jwt.InvalidTokenError as error:
        return f"the token is wrong: {error}"
    if kind != "Bearer" or claims["iss"] != EMAIL or claims["sub"] != EMAIL or SCOPE not in claims.get("scope", "").split():
        return f"the token is for something else: {claims}"
    if jwt.get_unverified_header(token).get("kid") != "key-1":
        return "the token does not name its key"
    if headers.get("x-goog-user-project") != QUOTA:
        return "no quota project"
    for group in request.resource_spans:
        projects = [a.value.string_value for a in group.resource.attributes if a.key == "gcp.project_id"]
        if projects != [PROJECT]:
            return f"a resource belongs to {projects}"
    return None


def spans(request):
    return [span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="text/plain", more=()):
        self.send_response(status)
        for name, value in more:
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        cloud = self.path.split("/")[1]
        if cloud not in taken or not self.path.endswith("/v1/traces"):
            return self.answer(404)
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        request = ExportTraceServiceRequest.FromString(plain)
        check = {"xray": xray, "cloudtrace": cloudtrace}[cloud]
        why = check(headers, f"http://{headers['host']}{self.path}", body, request)
        if why:
            refused.append(why)
            print(f"refused: {cloud}: {why}", flush=True)
            return self.answer(403, why.encode())
        taken[cloud].append(request)
        return self.answer(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def do_PUT(self):
        if self.path == "/latest/api/token":
            life = self.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "60")
            return self.answer(200, imds_token.encode(), more=[("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", life)])
        return self.answer(404)

    def do_GET(self):
        role = "/latest/meta-data/iam/security-credentials"
        if self.path.startswith("/latest/") and self.headers.get("x-aws-ec2-metadata-token") != imds_token:
            return self.answer(401)
        if self.path.rstrip("/") in (role, role + "-extended"):
            return self.answer(200 if self.path.rstrip("/") == role else 404, ROLE.encode())
        if self.path == f"{role}/{ROLE}":
            until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            return self.answer(
                200,
                json.dumps(
                    {
                        "Code": "Success",
                        "Type": "AWS-HMAC",
                        "LastUpdated": "2026-01-01T00:00:00Z",
                        "AccessKeyId": aws.access_key,
                        "SecretAccessKey": aws.secret_key,
                        "Token": aws.token,
                        "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                ).encode(),
            )
        if self.path == "/refused":
            return self.answer(200, str(len(refused)).encode())
        if self.path.startswith("/spans/"):
            lines = [json.dumps(readable(request)) for request in taken[self.path.split("/")[2]]]
            return self.answer(200, "\n".join(lines).encode(), "application/json")
        return self.answer(404)


def readable(request):
    """OTLP in JSON: ids in hexadecimal, where protobuf's own JSON has base64."""
    text = MessageToDict(request, use_integers_for_enums=True)
    written = [span for group in text["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]
    for span, there in zip(spans(request), written, strict=True):
        there["traceId"], there["spanId"] = span.trace_id.hex(), span.span_id.hex()
        there["parentSpanId"] = span.parent_span_id.hex()
    return text


server = ThreadingHTTPServer(("127.0.0.1", PORT), Door)
print("ready", flush=True)
server.serve_forever()
