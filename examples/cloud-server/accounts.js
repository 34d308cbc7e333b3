// Who may do what: OAuth 2.0 device authorization (RFC 8628), renewal (RFC 6749, section 6), revocation (RFC 7009).
// Links and the accounts' limits are kept in one file; of tokens only their SHA-256 is.
import { createHash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code'
// Letters that are not taken for one another, and no vowels, so that no word comes out (RFC 8628, section 6.1).
const LETTERS = 'BCDFGHJKLMNPQRSTVWXZ'

const hash = (text) => createHash('sha256').update(text).digest('hex')
const token = () => randomBytes(32).toString('base64url')
const equal = (a, b) => timingSafeEqual(Buffer.from(hash(a)), Buffer.from(hash(b)))

/** An answer of an OAuth endpoint that says no. */
export class OAuthError extends Error {
  constructor(word, description = word, status = 400) {
    super(description)
    Object.assign(this, { word, status })
  }
}

export class Accounts {
  constructor({ folder, passphrase, tokenSeconds, deviceSeconds, interval }) {
    Object.assign(this, { passphrase, tokenSeconds, deviceSeconds, interval })
    this.file = join(folder, 'accounts.json')
    const known = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')) : { limits: {}, links: [] }
    this.limits = known.limits
    this.links = known.links
    this.devices = new Map()
  }

  #save() {
    const fresh = `${this.file}.new`
    const file = openSync(fresh, 'w', 0o600)
    writeSync(file, JSON.stringify({ limits: this.limits, links: this.links }))
    fsyncSync(file)
    closeSync(file)
    renameSync(fresh, this.file)
  }

  /** quota_bytes, retain_seconds, max_object_bytes, token_seconds, page: what an account has of its own. */
  of(account) {
    return this.limits[account] ?? {}
  }

  limit(account, limits) {
    this.limits[account] = limits
    this.#save()
  }

  /** Whose access token it is; undefined if it is none, or none any more. */
  whose(given) {
    const sum = hash(given)
    for (const link of this.links) {
      const found = link.access.find((it) => it.hash === sum && it.until > Date.now())
      if (!found) continue
      if (found === link.access.at(-1) && link.former) {
        // The client has got what it was given: the refresh token before it is over.
        link.former = null
        this.#save()
      }
      return link.account
    }
  }

  /** Begins a link. */
  device(form, base) {
    if (!form.get('client_id')) throw new OAuthError('invalid_client', 'client_id is missing')
    for (const [code, device] of this.devices) if (device.until < Date.now()) this.devices.delete(code)
    const letters = Array.from({ length: 8 }, () => LETTERS[randomInt(LETTERS.length)]).join('')
    const [code, user] = [token(), `${letters.slice(0, 4)}-${letters.slice(4)}`]
    const until = Date.now() + this.deviceSeconds * 1000
    this.devices.set(code, { user, until, interval: this.interval, asked: 0, account: undefined, denied: false })
    return {
      device_code: code,
      user_code: user,
      verification_uri: `${base}/device`,
      verification_uri_complete: `${base}/device?user_code=${user}`,
      expires_in: this.deviceSeconds,
      interval: this.interval,
    }
  }

  /** What a person has answered on the page; says what came of it. */
  answer(form) {
    const plain = (text) => (text ?? '').toUpperCase().replace(/[^A-Z]/g, '')
    if (!equal(form.get('passphrase') ?? '', this.passphrase)) return [403, 'That is not the passphrase.']
    const account = (form.get('account') ?? '').trim()
    if (!/^[\w.@-]{1,64}$/.test(account)) return [400, 'An account has letters, digits and . _ @ - in its name.']
    const wanted = plain(form.get('user_code'))
    const device = [...this.devices.values()].find((it) => plain(it.user) === wanted && it.until > Date.now())
    if (!device || device.account || device.denied) return [404, 'There is no such code (any more).']
    if (form.get('answer') === 'deny') device.denied = true
    else device.account = account
    return [200, device.denied ? 'It was denied.' : `It is linked to the account ${account}. You can close this page.`]
  }

  /** The token endpoint. */
  token(form) {
    if (!form.get('client_id')) throw new OAuthError('invalid_client', 'client_id is missing')
    if (form.get('grant_type') === DEVICE) return this.#byDevice(form.get('device_code') ?? '')
    if (form.get('grant_type') === 'refresh_token') return this.#byRefresh(form.get('refresh_token') ?? '')
    throw new OAuthError('unsupported_grant_type')
  }

  #byDevice(code) {
    const device = this.devices.get(code)
    if (!device) throw new OAuthError('invalid_grant', 'there is no such device code')
    if (device.until < Date.now()) throw new OAuthError('expired_token')
    if (device.denied) throw new OAuthError('access_denied')
    const early = Date.now() - device.asked < device.interval * 1000 - 200
    device.asked = Date.now()
    if (early) {
      device.interval += 5
      throw new OAuthError('slow_down')
    }
    if (!device.account) throw new OAuthError('authorization_pending')
    this.devices.delete(code)
    return this.link(device.account)
  }

  #byRefresh(given) {
    const sum = hash(given)
    const link = this.links.find((it) => it.refresh === sum || it.former === sum)
    if (!link) throw new OAuthError('invalid_grant', 'the refresh token is not known (any more)')
    return this.#grant(link, sum)
  }

  /** A new link of an account. */
  link(account) {
    const link = { account, refresh: null, former: null, access: [] }
    this.links.push(link)
    return this.#grant(link, null)
  }

  #grant(link, used) {
    const seconds = this.of(link.account).token_seconds ?? this.tokenSeconds
    const [access, refresh] = [token(), token()]
    // An answer may get lost: what was used stays good until what was given for it is used.
    Object.assign(link, { former: used, refresh: hash(refresh) })
    link.access = link.access.filter((it) => it.until > Date.now())
    link.access.push({ hash: hash(access), until: Date.now() + seconds * 1000 })
    this.#save()
    return { access_token: access, token_type: 'Bearer', expires_in: seconds, refresh_token: refresh, scope: 'objects' }
  }

  /** Ends the link that a token is of; an unknown one is no error. */
  revoke(given) {
    const sum = hash(given ?? '')
    const is = (link) => link.refresh === sum || link.former === sum || link.access.some((it) => it.hash === sum)
    this.links = this.links.filter((link) => !is(link))
    this.#save()
  }

  /** Ends an account's access tokens before their time. */
  expire(account) {
    for (const link of this.links) if (link.account === account) link.access = []
    this.#save()
  }
}
