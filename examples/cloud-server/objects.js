// Objects on disk: `objects/ID` is the bytes, `objects/ID.json` what is known of them; the latter makes it visible.
import { createHash } from 'node:crypto'
import { closeSync, createReadStream, fsyncSync, mkdirSync, openSync, readFileSync, readdirSync, renameSync } from 'node:fs'
import { rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** An answer that says no: a problem of RFC 9457. */
export class Problem extends Error {
  constructor(status, word, detail, more = {}) {
    super(detail)
    Object.assign(this, { status, word, more })
  }
}

const bytes = (text) => Buffer.from(text, 'utf8')

/** Whether a text can be a key. */
export const isKey = (key) =>
  typeof key === 'string' && key !== '' && bytes(key).length <= 1024 && !/[\u0000-\u001f\u007f]/.test(key) &&
  key.split('/').every((part) => part !== '' && part !== '.' && part !== '..')

function sync(path) {
  const file = openSync(path, 'r')
  fsyncSync(file)
  closeSync(file)
}

export class Objects {
  constructor(folder) {
    this.folder = join(folder, 'objects')
    this.all = new Map()
    this.uploads = new Map()
    this.finishing = new Map()
    mkdirSync(this.folder, { recursive: true })
    const names = new Set(readdirSync(this.folder))
    for (const name of names) {
      if (name.endsWith('.json') && names.has(name.slice(0, -5))) this.#know(JSON.parse(readFileSync(join(this.folder, name))))
      // What a crash has left.
      else if (!names.has(`${name}.json`)) rmSync(join(this.folder, name))
    }
  }

  #know(object) {
    this.all.set(`${object.account}\0${object.key}`, object)
    this.uploads.set(object.upload, object)
  }

  get(account, key) {
    return this.all.get(`${account}\0${key}`)
  }

  path(object) {
    return join(this.folder, object.upload)
  }

  /** An account's objects, in the order of their keys' bytes. */
  of(account, prefix = '') {
    const its = [...this.all.values()].filter((it) => it.account === account && it.key.startsWith(prefix))
    return its.sort((a, b) => Buffer.compare(bytes(a.key), bytes(b.key)))
  }

  used(account) {
    return this.of(account).reduce((sum, object) => sum + object.size, 0)
  }

  /** Makes an object of a whole upload, once: the file is moved. */
  publish(upload, account, limits) {
    const { id } = upload
    if (!this.finishing.has(id)) {
      const done = this.#publish(upload, account, limits).finally(() => this.finishing.delete(id))
      this.finishing.set(id, done)
    }
    return this.finishing.get(id)
  }

  async #publish({ id, metadata: { key }, storage }, account, limits) {
    const sum = createHash('sha256')
    await pipeline(createReadStream(storage.path), sum)
    sync(storage.path)
    // From here on nobody comes between: there is no other process, and nothing is waited for.
    const { size } = statSync(storage.path)
    if (this.uploads.has(id)) return this.uploads.get(id)
    if (this.get(account, key)) throw new Problem(409, 'key-exists', 'there is an object of that key already')
    this.fits(account, limits, size)
    const modified = new Date().toISOString()
    const object = { account, key, size, modified, upload: id, etag: `"${id}"`, sha256: sum.digest('hex') }
    renameSync(storage.path, this.path(object))
    const fresh = `${this.path(object)}.new`
    const file = openSync(fresh, 'wx', 0o600)
    writeSync(file, JSON.stringify(object))
    fsyncSync(file)
    closeSync(file)
    renameSync(fresh, `${this.path(object)}.json`)
    sync(this.folder)
    this.#know(object)
    return object
  }

  /** Refuses what is more than an account may have. */
  fits(account, { quota_bytes: quota }, size) {
    const used = quota === undefined ? 0 : this.used(account)
    if (quota === undefined || used + size <= quota) return
    throw new Problem(507, 'quota-exceeded', `the account has ${quota} bytes, and ${used} of them are used`, {
      quota_bytes: quota,
      used_bytes: used,
    })
  }

  remove(object, { retain_seconds: seconds }) {
    const until = seconds === undefined ? 0 : Date.parse(object.modified) + seconds * 1000
    if (until > Date.now()) {
      const retained_until = new Date(until).toISOString()
      throw new Problem(403, 'retention-locked', `it is kept until ${retained_until}`, { retained_until })
    }
    rmSync(`${this.path(object)}.json`)
    rmSync(this.path(object))
    this.all.delete(`${object.account}\0${object.key}`)
    this.uploads.delete(object.upload)
  }
}
