// Uploads by tus 1.0: `@tus/server` with its store for files, to which this adds the checksum extension.
import { AsyncLocalStorage } from 'node:async_hooks'
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'

import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'
import { Problem, isKey } from './objects.js'

// A chunk with a checksum is in memory until it is compared.
const MAX_CHECKED = 64 * 1024 * 1024
const ALGORITHMS = ['sha1', 'sha256']
// Unfinished uploads are forgotten after so long.
const EXPIRATION = 7 * 24 * 3600 * 1000

/** What the request at hand is about: its account, and its Upload-Checksum. */
export const current = new AsyncLocalStorage()

const refusal = (status_code, word, text) => ({ status_code, word, body: text })

class CheckedStore extends FileStore {
  constructor(options) {
    super(options)
    this.extensions = [...this.extensions, 'checksum']
  }

  async write(stream, id, offset) {
    const { checksum } = current.getStore()
    if (!checksum) return super.write(stream, id, offset)
    const parts = []
    let size = 0
    for await (const part of stream) {
      size += part.length
      if (size > MAX_CHECKED) throw refusal(413, 'too-large', 'a chunk with a checksum has at most 64 MiB')
      parts.push(part)
    }
    const sum = createHash(checksum.algorithm)
    parts.forEach((part) => sum.update(part))
    // A body that broke off has another sum, too: nothing of it is kept.
    if (sum.digest('base64') !== checksum.value) throw refusal(460, 'checksum-mismatch', 'the chunk is not its checksum')
    return size === 0 ? offset : super.write(Readable.from(parts), id, offset)
  }
}

/** Reads Upload-Checksum. */
export function checksum(header) {
  if (header === undefined) return undefined
  const [algorithm, value, ...rest] = header.split(' ')
  if (!ALGORITHMS.includes(algorithm) || !value || rest.length > 0) {
    throw new Problem(400, 'bad-request', `Upload-Checksum takes ${ALGORITHMS.join(' and ')}`)
  }
  return { algorithm, value }
}

/** What stands in an answer once an upload is an object. */
export const about = (object) => ({
  'Content-Location': `/v1/objects/${object.key.split('/').map(encodeURIComponent).join('/')}`,
  ETag: object.etag,
  'Last-Modified': new Date(object.modified).toUTCString(),
  'Repr-Digest': `sha-256=:${Buffer.from(object.sha256, 'hex').toString('base64')}:`,
})

export function uploads(folder, objects, accounts, problem) {
  const refuse = (error) => {
    throw error instanceof Problem ? { status_code: error.status, body: error.message, problem: error } : error
  }
  const tus = new Server({
    path: '/v1/uploads',
    relativeLocation: true,
    datastore: new CheckedStore({ directory: `${folder}/uploads`, expirationPeriodInMilliseconds: EXPIRATION }),
    maxSize: () => accounts.of(current.getStore().account).max_object_bytes ?? 0,
    namingFunction: () => randomBytes(16).toString('hex'),
    async onUploadCreate(_, res, upload) {
      const { account } = current.getStore()
      const key = upload.metadata?.key
      try {
        if (!isKey(key)) throw new Problem(400, 'bad-request', 'Upload-Metadata has no `key` that can be one')
        if (objects.get(account, key)) throw new Problem(409, 'key-exists', 'there is an object of that key already')
        objects.fits(account, accounts.of(account), upload.size ?? 0)
      } catch (error) {
        refuse(error)
      }
      return { res, metadata: { key, account } }
    },
    async onIncomingRequest(req, _, id) {
      if (req.method === 'POST') return
      const { account } = current.getStore()
      const upload = await tus.datastore.getUpload(id)
      if (upload.metadata?.account !== account) refuse(new Problem(404, 'not-found', 'there is no such upload'))
      const length = Number(req.headers['content-length'] ?? 0)
      try {
        if (req.method === 'PATCH') objects.fits(account, accounts.of(account), upload.offset + length)
      } catch (error) {
        refuse(error)
      }
    },
    async onUploadFinish(_, res, upload) {
      const { account } = current.getStore()
      try {
        const object = await objects.publish(upload, account, accounts.of(account))
        await tus.datastore.configstore.delete(upload.id)
        return { res, headers: about(object) }
      } catch (error) {
        if (error instanceof Problem) await tus.datastore.remove(upload.id).catch(() => {})
        return refuse(error)
      }
    },
    onResponseError(_, res, error) {
      const status = error.status_code ?? 500
      const words = { 403: 'not-found', 404: 'not-found', 409: 'offset-conflict', 410: 'not-found', 413: 'too-large' }
      if (status >= 500 && !error.problem) console.error(error)
      const word = error.problem?.word ?? error.word ?? words[status] ?? 'bad-request'
      const told = error.problem ?? new Problem(status, word, String(error.body ?? 'it failed').trim())
      res.setHeader('Content-Type', 'application/problem+json')
      return { status_code: status, body: problem(res.req, told) }
    },
  })
  setInterval(() => tus.cleanUpExpiredUploads().catch(() => {}), 3600 * 1000).unref()
  return tus
}
