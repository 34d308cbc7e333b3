// A reference server for docs/cloud-protocol.md: plain HTTP on one port, everything in one folder, one process.
import { createReadStream, mkdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { pipeline } from 'node:stream'
import { parseArgs } from 'node:util'

import { Accounts, OAuthError } from './accounts.js'
import { Objects, Problem } from './objects.js'
import { about, checksum, current, uploads } from './uploads.js'

const { values: flags } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '8080' },
    data: { type: 'string', default: 'data' },
    // The address that clients see, where a proxy with TLS stands before it.
    'public-url': { type: 'string' },
    'token-seconds': { type: 'string', default: '3600' },
    'device-seconds': { type: 'string', default: '600' },
    interval: { type: 'string', default: '5' },
  },
})
const passphrase = process.env.CLOUD_PASSPHRASE
// Where it is set, its bearer may turn everything under /admin.
const admin = process.env.CLOUD_ADMIN_TOKEN
if (!passphrase) {
  console.error('set CLOUD_PASSPHRASE: whoever approves a link has to know it')
  process.exit(2)
}
mkdirSync(flags.data, { recursive: true, mode: 0o700 })
const accounts = new Accounts({
  folder: flags.data,
  passphrase,
  tokenSeconds: Number(flags['token-seconds']),
  deviceSeconds: Number(flags['device-seconds']),
  interval: Number(flags.interval),
})
const objects = new Objects(flags.data)
const tus = uploads(flags.data, objects, accounts, (req, told) => JSON.stringify(document(req, told)))

const base = (req) => flags['public-url'] ?? `http://${req.headers.host}`
const document = (req, { status, word, message, more }) => ({
  type: `${base(req)}/problems/${word}`,
  title: word.replaceAll('-', ' '),
  status,
  detail: message,
  ...more,
})

function send(res, status, value, type = 'application/json', headers = {}) {
  const body = typeof value === 'string' ? value : JSON.stringify(value)
  res.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body), 'Cache-Control': 'no-store', ...headers })
  res.end(res.req.method === 'HEAD' ? undefined : body)
}

async function text(req) {
  let all = ''
  for await (const part of req) {
    all += part
    if (all.length > 65536) throw new Problem(413, 'too-large', 'the form is too long')
  }
  return all
}

const bearer = (req) => /^Bearer (\S+)$/i.exec(req.headers.authorization ?? '')?.[1]

function account(req) {
  const found = bearer(req) && accounts.whose(bearer(req))
  if (!found) throw new Problem(401, 'unauthorized', 'the access token is missing, or good no longer')
  return found
}

const escaped = (text) => text.replace(/[^\w .@-]/g, (c) => `&#${c.codePointAt(0)};`)
const page = (inner) => `<!doctype html><meta charset="utf-8"><title>Link an instance</title><h1>Link an instance</h1>${inner}`
const form = (code) =>
  page(`<p>Type the code that <code>voxeltron-backup cloud link</code> shows. Approve it only if you have just begun that
    yourself.</p><form method="post"><p><label>Code <input name="user_code" value="${escaped(code)}" required></label>
    <p><label>Account <input name="account" required></label>
    <p><label>Passphrase <input name="passphrase" type="password" required></label>
    <p><button name="answer" value="approve">Approve</button> <button name="answer" value="deny">Deny</button></form>`)

async function device(req, res, url) {
  const guard = { 'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'" }
  if (req.method !== 'POST') return send(res, 200, form(url.searchParams.get('user_code') ?? ''), 'text/html', guard)
  const [status, said] = accounts.answer(new URLSearchParams(await text(req)))
  // One guess a second.
  if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 1000))
  return send(res, status, page(`<p>${escaped(said)}`), 'text/html', guard)
}

async function oauth(req, res, does) {
  try {
    return send(res, 200, does(new URLSearchParams(await text(req))) ?? {})
  } catch (error) {
    if (!(error instanceof OAuthError)) throw error
    return send(res, error.status, { error: error.word, error_description: error.message })
  }
}

function metadata(req, res) {
  const issuer = base(req)
  return send(res, 200, {
    issuer,
    device_authorization_endpoint: `${issuer}/oauth/device`,
    token_endpoint: `${issuer}/oauth/token`,
    revocation_endpoint: `${issuer}/oauth/revoke`,
    grant_types_supported: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
    response_types_supported: [],
    token_endpoint_auth_methods_supported: ['none'],
    scopes_supported: ['objects'],
  })
}

function listing(req, res, url) {
  const its = account(req)
  const most = accounts.of(its).page ?? 1000
  const limit = Math.min(most, Math.max(1, Number(url.searchParams.get('limit') ?? most) || most))
  const after = Buffer.from(url.searchParams.get('page_token') ?? '', 'base64url')
  const rest = objects.of(its, url.searchParams.get('prefix') ?? '').filter((it) => Buffer.compare(Buffer.from(it.key), after) > 0)
  const shown = rest.slice(0, limit)
  const next = rest.length > limit ? Buffer.from(shown.at(-1).key).toString('base64url') : null
  const plain = ({ key, size, modified, etag, sha256 }) => ({ key, size, modified, etag, sha256 })
  return send(res, 200, { objects: shown.map(plain), next_page_token: next })
}

function read(req, res, object) {
  const headers = { ...about(object), 'Accept-Ranges': 'bytes', 'Content-Type': 'application/octet-stream' }
  const wanted = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '')
  let [status, first, last] = [200, 0, object.size - 1]
  if (wanted && object.size > 0) {
    ;[first, last] = [Number(wanted[1]), Math.min(last, wanted[2] === '' ? last : Number(wanted[2]))]
    if (first > last) {
      throw new Problem(416, 'bad-range', 'the object ends before that')
    }
    status = 206
    headers['Content-Range'] = `bytes ${first}-${last}/${object.size}`
  }
  res.writeHead(status, { ...headers, 'Content-Length': last - first + 1 })
  if (req.method === 'HEAD' || object.size === 0) return res.end()
  return pipeline(createReadStream(objects.path(object), { start: first, end: last }), res, () => {})
}

function one(req, res, path) {
  const its = account(req)
  let key
  try {
    key = decodeURIComponent(path)
  } catch {
    throw new Problem(400, 'bad-request', 'the key is not percent-encoded UTF-8')
  }
  const object = objects.get(its, key)
  const match = req.headers['if-match']
  if (match && match !== '*' && match !== object?.etag) throw new Problem(412, 'changed', 'it is another object now')
  if (req.method === 'DELETE') {
    if (object) objects.remove(object, accounts.of(its))
    return res.writeHead(204).end()
  }
  if (!object) throw new Problem(404, 'not-found', 'there is no such object')
  if (req.method === 'GET' || req.method === 'HEAD') return read(req, res, object)
  throw new Problem(405, 'bad-request', 'an object is read or deleted; to store one, upload it')
}

/** An upload that has become an object already: what is asked of it is answered from there. */
function finished(req, res, object, its) {
  if (object.account !== its) throw new Problem(404, 'not-found', 'there is no such upload')
  const headers = { 'Tus-Resumable': '1.0.0', 'Cache-Control': 'no-store', ...about(object) }
  if (req.method === 'DELETE') {
    objects.remove(object, accounts.of(its))
    return res.writeHead(204, headers).end()
  }
  if (req.method === 'PATCH' && Number(req.headers['upload-offset']) !== object.size) {
    throw new Problem(409, 'offset-conflict', 'the upload is whole')
  }
  req.resume()
  return res.writeHead(req.method === 'HEAD' ? 200 : 204, { ...headers, 'Upload-Offset': object.size, 'Upload-Length': object.size }).end()
}

async function upload(req, res, id) {
  if (req.method === 'OPTIONS') res.setHeader('Tus-Checksum-Algorithm', 'sha1,sha256')
  const its = req.method === 'OPTIONS' ? '' : account(req)
  // Of one that is becoming an object, the answer is what comes of it.
  if (req.method === 'HEAD') await objects.finishing.get(id)?.catch(() => {})
  const object = objects.uploads.get(id)
  if (object) return finished(req, res, object, its)
  if (req.method === 'GET') throw new Problem(405, 'bad-request', 'an upload is not read; its object is')
  return current.run({ account: its, checksum: checksum(req.headers['upload-checksum']) }, () => tus.handle(req, res))
}

/** What tests and scripts turn. */
async function turn(req, res, [name, does]) {
  if (!admin || bearer(req) !== admin) throw new Problem(404, 'not-found', 'there is nothing here')
  const given = await text(req)
  if (req.method === 'PUT' && !does) return send(res, 200, accounts.limit(name, JSON.parse(given)) ?? {})
  if (req.method === 'POST' && does === 'link') return send(res, 200, accounts.link(name))
  if (req.method === 'POST' && does === 'expire') return send(res, 200, accounts.expire(name) ?? {})
  if (req.method !== 'GET') throw new Problem(404, 'not-found', 'there is nothing here')
  const unfinished = []
  for (const id of await tus.datastore.configstore.list()) {
    const found = await tus.datastore.configstore.get(id)
    if (found?.metadata?.account === name) unfinished.push({ id, key: found.metadata.key })
  }
  return send(res, 200, { objects: objects.of(name), unfinished, links: accounts.links.filter((it) => it.account === name).length })
}

async function route(req, res) {
  const url = new URL(req.url, 'http://x')
  // Not by `url`, which would resolve dots.
  const path = req.url.split('?')[0]
  const below = (start) => (path.startsWith(start) ? path.slice(start.length) : undefined)
  const post = req.method === 'POST'
  if (path === '/.well-known/oauth-authorization-server') return metadata(req, res)
  if (path === '/device') return device(req, res, url)
  if (path === '/oauth/device' && post) return oauth(req, res, (form) => accounts.device(form, base(req)))
  if (path === '/oauth/token' && post) return oauth(req, res, (form) => accounts.token(form))
  if (path === '/oauth/revoke' && post) return oauth(req, res, (form) => accounts.revoke(form.get('token')))
  if (path === '/v1/uploads') return upload(req, res)
  if (below('/v1/uploads/')) return upload(req, res, below('/v1/uploads/'))
  if (path === '/v1/objects' && req.method === 'GET') return listing(req, res, url)
  if (below('/v1/objects/')) return one(req, res, below('/v1/objects/'))
  if (path === '/v1/account') {
    const its = account(req)
    return send(res, 200, { account: its, used_bytes: objects.used(its), quota_bytes: accounts.of(its).quota_bytes ?? null })
  }
  if (below('/admin/accounts/')) return turn(req, res, below('/admin/accounts/').split('/'))
  throw new Problem(404, 'no-such-address', 'there is nothing here')
}

const server = createServer((req, res) => {
  route(req, res).catch((error) => {
    const told = error instanceof Problem ? error : new Problem(500, 'failed', 'the server failed')
    if (told !== error) console.error(error)
    if (res.headersSent) return res.destroy()
    const headers = told.status === 401 ? { 'WWW-Authenticate': 'Bearer error="invalid_token"' } : {}
    // What is left of a body that nobody wants would be taken for the next request.
    if (!req.complete) headers.Connection = 'close'
    send(res, told.status, document(req, told), 'application/problem+json', headers)
  })
})
// A chunk may take its time.
server.requestTimeout = 0
server.listen(Number(flags.port), flags.host, () => console.log(`listening on http://${flags.host}:${server.address().port}`))
