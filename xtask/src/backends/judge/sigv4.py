"""Signature Version 4 by botocore: checks the requests of the judge, and writes the cases of the exporter's unit test."""

import datetime
import hashlib

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class At(SigV4Auth):
    """botocore's signer at a given time, over given headers only."""

    def __init__(self, credentials, service, region, date, signed):
        super().__init__(credentials, service, region)
        self.date, self.signed = date, signed

    def headers_to_sign(self, request):
        headers = super().headers_to_sign(request)
        for name in list(headers):
            if name not in self.signed:
                del headers[name]
        return headers


def authorization(credentials, region, method, url, headers, body):
    """The `Authorization` that the request should have; `headers` are those that came, by lower-case name."""
    given = headers.get("authorization", "")
    signed = given.split("SignedHeaders=")[-1].split(",")[0].split(";")
    request = AWSRequest(method=method, url=url, data=body)
    for name in signed:
        if name not in ("host", "x-amz-date", "x-amz-security-token"):
            request.headers[name] = headers.get(name, "")
    signer = At(credentials, "xray", region, headers["x-amz-date"], signed)
    # What `add_auth` does, with the request's own time.
    request.context["timestamp"] = headers["x-amz-date"]
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    scope = f"{credentials.access_key}/{signer.credential_scope(request)}"
    names = signer.signed_headers(signer.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"


def is_right(credentials, region, method, url, headers, body, now=None):
    """Whether a request is signed rightly, and when: AWS takes five minutes of difference."""
    try:
        date = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    except (KeyError, ValueError):
        return False
    if headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
        return False
    now = now or datetime.datetime.now(datetime.timezone.utc)
    expected = authorization(credentials, region, method, url, headers, body)
    return abs((now - date).total_seconds()) < 300 and expected == headers.get("authorization")


if __name__ == "__main__":
    # The cases of tracer-userspace/src/export/xray/signatures.in.
    print("// Made by xtask/src/backends/judge/sigv4.py with botocore: do not edit.")
    print("[")
    for token, body, url in [
        ("", "", "https://xray.eu-central-1.amazonaws.com/v1/traces"),
        ("", "body", "https://xray.eu-central-1.amazonaws.com/v1/traces"),
        ("session/token+x==", "body", "https://xray.eu-central-1.amazonaws.com/v1/traces"),
        ("", "body", "http://127.0.0.1:4318/a%20b/v1/traces?k=v&a=b"),
    ]:
        credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token or None)
        names = ["content-type", "host", "x-amz-content-sha256", "x-amz-date"]
        names += ["x-amz-security-token"] if token else []
        headers = {
            "authorization": f"SignedHeaders={';'.join(names)},",
            "content-type": "application/x-protobuf",
            "x-amz-date": "20231114T221320Z",
            "x-amz-content-sha256": hashlib.sha256(body.encode()).hexdigest(),
        }
        signature = authorization(credentials, "eu-central-1", "POST", url, headers, body.encode())
        print(f'    ("{token}", "{body}", "{url}", "{signature}"),')
    print("]")
