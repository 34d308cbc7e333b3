"""Makes backups with Google's Tink: tink_seal.py KEY HEADER [PLAIN OUTPUT]… ; HEADER is what stands before, whole."""

import sys

from tink_keyset import primitive, read_before

streams = primitive(sys.argv[1])
with open(sys.argv[2], "rb") as file:
    header = read_before(file)
for source, output in zip(sys.argv[3::2], sys.argv[4::2], strict=True):
    with open(output, "wb") as out:
        out.write(header)
        with open(source, "rb") as plain, streams.new_encrypting_stream(out, header) as sealed:
            while block := plain.read(300_000):
                sealed.write(block)
