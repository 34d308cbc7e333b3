#!/usr/bin/env python3
"""Recovers a backup without voxeltron-backup: Python 3 and the package `cryptography`, nothing else.

    recover.py KEY_FILE BACKUP OUTPUT [--manifest BACKUP.manifest.json]

KEY_FILE holds the base64 key; `-` takes it from $VOXELTRON_KEY. OUTPUT appears only if every byte of BACKUP was
authenticated. A backup that is not encrypted is taken only with its signed manifest, which alone can vouch for it.
The format is described in voxeltron-backup-format(5)."""
import argparse, base64, hashlib, hmac, itertools, json, os, tempfile, zlib
from sys import exit as refuse
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC, SEGMENT, HEAD = b"VXLBKP\x00\x01", 1 << 20, 40

def derive(key, info, salt=None):
    return HKDF(SHA256(), 32, salt, info).derive(key)

def segments(read, key, before):
    """The plaintext, segment by segment; each is given only after its tag has held."""
    head = read(HEAD)
    if len(head) != HEAD or head[0] != HEAD:
        refuse("the backup is cut or damaged behind its header")
    cipher, number, block = AESGCM(derive(key, before, head[1:33])), 0, read(SEGMENT - HEAD)
    while True:
        after = read(SEGMENT)
        nonce = head[33:] + number.to_bytes(4, "big") + (b"\0" if after else b"\1")
        try:
            yield cipher.decrypt(nonce, block, b"")
        except InvalidTag:
            refuse(f"segment {number + 1} does not authenticate: cut, changed, or another key's")
        if not after: return
        block, number = after, number + 1

def gunzip(blocks):
    """Every member of a gzip stream, in pieces of at most 1 MiB."""
    member = None
    for data in blocks:
        while data:
            member = member or zlib.decompressobj(wbits=31)
            yield member.decompress(data, 1 << 20)
            data = member.unconsumed_tail or member.unused_data
            member = None if member.eof else member
    if member: refuse("the compressed data is cut")

parser = argparse.ArgumentParser()
[parser.add_argument(name) for name in ("key_file", "backup", "output", "--manifest")]
args = parser.parse_args()
key = base64.b64decode(os.environ["VOXELTRON_KEY"] if args.key_file == "-" else open(args.key_file).read())
said, digest = None, hashlib.sha256()
if args.manifest:
    envelope = json.load(open(args.manifest))
    mac = hmac.new(derive(key, b"voxeltron-backup manifest"), envelope["signed"].encode(), "sha256").hexdigest()
    if envelope["format"] != 1 or not hmac.compare_digest(mac, envelope["hmac"] or ""):
        refuse("the manifest is not signed under this key")
    said = json.loads(envelope["signed"])
os.umask(0o077)
with open(args.backup, "rb") as file, tempfile.TemporaryDirectory(dir=os.path.dirname(args.output) or ".") as folder:
    def read(count):
        digest.update(data := file.read(count))
        return data
    before = read(12)
    if before[:8] == MAGIC:
        before += read(min(int.from_bytes(before[8:], "big"), 1 << 16))
        header, blocks = json.loads(before[12:]), segments(read, key, before)
        if said and any(header[name] != said[name] for name in set(header) & set(said)):
            refuse("the manifest is another backup's")
    elif said and said["encryption"] == "none":
        header, blocks = said, itertools.chain([before], iter(lambda: read(SEGMENT), b""))
    else:
        refuse("this is not an encrypted backup, and no signed manifest says that it need not be")
    with open(os.path.join(folder, "dump"), "xb") as out:
        for data in gunzip(blocks) if header["compression"] == "gzip" else blocks:
            out.write(data)
        if said and (digest.hexdigest(), out.tell()) != (said["stored_sha256"], said["dump_bytes"]):
            refuse("the backup is not the one that the manifest describes")
    os.rename(out.name, args.output)
