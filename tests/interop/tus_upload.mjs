// Stores stdin as an object by tus-js-client, which we did not write.
// tus_upload.mjs NODE_MODULES ENDPOINT KEY, the token in TOKEN.
import { createRequire } from 'node:module'
import { buffer } from 'node:stream/consumers'

const [, , modules, endpoint, key] = process.argv
const tus = createRequire(`${modules}/`)('tus-js-client')
const bytes = await buffer(process.stdin)
await new Promise((resolve, reject) => {
  const upload = new tus.Upload(bytes, {
    endpoint: `${endpoint}/v1/uploads`,
    metadata: { key },
    headers: { Authorization: `Bearer ${process.env.TOKEN}` },
    chunkSize: 300_000,
    onSuccess: resolve,
    onError: reject,
  })
  upload.start()
})
