"""A raw 32-byte key as a keyset of Google's Tink: AES256_GCM_HKDF_1MB without an output prefix."""

import base64
import json

import tink
from tink import secret_key_access, streaming_aead

MAGIC = b"VXLBKP\x00\x01"


def primitive(key_base64):
    streaming_aead.register()
    key = base64.b64decode(key_base64, validate=True)
    assert len(key) == 32
    # The protobuf AesGcmHkdfStreamingKey: segments of 1 MiB, derived keys of 32 bytes, HKDF with SHA-256, the key.
    value = bytes.fromhex("12080880804010201803" + "1a20") + key
    keyset = {
        "primaryKeyId": 1,
        "key": [
            {
                "keyData": {
                    "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    "value": base64.b64encode(value).decode(),
                    "keyMaterialType": "SYMMETRIC",
                },
                "status": "ENABLED",
                "keyId": 1,
                "outputPrefixType": "RAW",
            }
        ],
    }
    handle = tink.json_proto_keyset_format.parse(json.dumps(keyset), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def read_before(file):
    """What stands before Tink's stream: magic, length, header. It is Tink's associated data."""
    before = file.read(12)
    if before[:8] != MAGIC:
        raise SystemExit("not an encrypted backup")
    return before + file.read(int.from_bytes(before[8:], "big"))
