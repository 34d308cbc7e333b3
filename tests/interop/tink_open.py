"""Opens backups with Google's Tink: tink_open.py KEY [BACKUP OUTPUT]… ; what comes out may still be compressed."""

import sys

from tink_keyset import primitive, read_before

streams = primitive(sys.argv[1])
for source, output in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    with open(source, "rb") as file:
        before = read_before(file)
        with streams.new_decrypting_stream(file, before) as opened, open(output, "wb") as out:
            while block := opened.read(1 << 20):
                out.write(block)
