"""Reads an object by plain HTTP, and compares it with the digest that the answer has. cloud_read.py URL, the token on stdin."""

import base64
import hashlib
import sys
import urllib.request

request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.stdin.read()})
with urllib.request.urlopen(request) as answer:
    data = answer.read()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:", answer.headers
sys.stdout.buffer.write(data)
