"""Reads an object with Google's own client, which also compares its checksum; lists its bucket on stderr."""

import sys

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

endpoint, bucket, name = sys.argv[1:]
options = ClientOptions(api_endpoint=endpoint)
client = storage.Client(project="tests", credentials=AnonymousCredentials(), client_options=options)
for blob in client.list_blobs(bucket):
    print(blob.name, blob.size, blob.content_type, blob.content_encoding, file=sys.stderr)
sys.stdout.buffer.write(client.bucket(bucket).blob(name).download_as_bytes(checksum="crc32c"))
