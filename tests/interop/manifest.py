"""Checks or makes a manifest with nothing but Python's standard library, HKDF written out.

    manifest.py KEY < MANIFEST          prints the key's id and what is signed as JSON; fails if it does not hold
    manifest.py KEY --sign < TEXT       makes a manifest of exactly this text
"""

import base64
import hashlib
import hmac
import json
import sys


def hkdf(key, info, length):
    """RFC 5869 with SHA-256 and no salt."""
    extracted = hmac.new(b"\0" * 32, key, hashlib.sha256).digest()
    block, out, number = b"", b"", 0
    while len(out) < length:
        number += 1
        block = hmac.new(extracted, block + info + bytes([number]), hashlib.sha256).digest()
        out += block
    return out[:length]


key = base64.b64decode(sys.argv[1], validate=True)
key_id = hkdf(key, b"voxeltron-backup key id", 8).hex()
signing = hkdf(key, b"voxeltron-backup manifest", 32)


def sign(text):
    return hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()


given = sys.stdin.buffer.read().decode()
if "--sign" in sys.argv:
    print(json.dumps({"format": 1, "signed": given, "key_id": key_id, "hmac": sign(given)}))
else:
    envelope = json.loads(given)
    if set(envelope) != {"format", "signed", "key_id", "hmac"} or envelope["format"] != 1:
        sys.exit("not a manifest of format 1")
    if envelope["key_id"] != key_id:
        sys.exit("signed under another key")
    if not hmac.compare_digest(envelope["hmac"], sign(envelope["signed"])):
        sys.exit("the signature does not hold")
    signed = json.loads(envelope["signed"])
    if signed["key_id"] != key_id:
        sys.exit("what is signed names another key")
    print(json.dumps({"key_id": key_id, "signed": signed}))
