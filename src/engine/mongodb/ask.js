// What the engine has the shell do. In: `uri` and `request`, which stand before this text, and the password in the
// environment. Out: one line with the answer. Everything here can be stopped at any point and done again.

const OURS = '__restoring_';
const MARKER = OURS + 'marker_';
const CODE = 'system.js';
const secret = process.env.VOXELTRON_MONGODB_PASSWORD;
const connection = connect(secret === undefined ? uri : uri.replace('@', ':' + encodeURIComponent(secret) + '@'));
const database = (name) => connection.getSiblingDB(name);
const admin = database('admin');

// What fails for want of a right is not known.
function maybe(ask) {
  try {
    return ask();
  } catch (error) {
    return null;
  }
}

function infos(db) {
  const identity = (it) => (it.info && it.info.uuid ? String(it.info.uuid) : null);
  return db.getCollectionInfos().map((it) => ({ name: it.name, type: it.type || 'collection', identity: identity(it) }));
}

function marker(db, hex) {
  return db.getCollection(MARKER + hex);
}

// The restores that are at work in a database, or have left something there. One lives whose last sign of life is young, by
// the server's clock, unless this host knows better: on it the lock of the restore is free.
function claims(db) {
  const marks = infos(db).filter((it) => it.name.startsWith(MARKER));
  const now = marks.length > 0 ? admin.runCommand({ hello: 1 }).localTime : null;
  return marks.map((it) => {
    const hex = it.name.slice(MARKER.length);
    const claim = db.getCollection(it.name).findOne({ _id: 'claim' });
    const plan = db.getCollection(it.name).findOne({ _id: 'plan' });
    const young = claim !== null && claim.beat !== undefined && now - claim.beat < request.lapse;
    return {
      hex,
      of: claim ? claim.of : null,
      since: claim && claim.since ? claim.since : null,
      swapping: plan !== null,
      alive: young && !request.ended.includes(hex),
    };
  });
}

// Gives a sign of life, by the server's clock.
function beat(db, hex, claim) {
  const change = { $currentDate: { beat: true }, ...(claim ? { $setOnInsert: claim } : {}) };
  return marker(db, hex).updateOne({ _id: 'claim' }, change, { upsert: claim !== undefined });
}

function look() {
  const db = database(request.database);
  const build = admin.runCommand({ buildInfo: 1 });
  const hello = admin.runCommand({ hello: 1 });
  const status = maybe(() => admin.runCommand({ connectionStatus: 1, showPrivileges: true }));
  const names = maybe(() => admin.runCommand({ listDatabases: 1, nameOnly: true }).databases.map((it) => it.name));
  const level = maybe(() => admin.runCommand({ getParameter: 1, featureCompatibilityVersion: 1 }).featureCompatibilityVersion.version);
  const auth = status ? status.authInfo : {};
  const drills = (names || []).filter((name) => name.startsWith(request.drills));
  return {
    version: build.version,
    ferretdb: build.ferretdb !== undefined,
    level,
    primary: hello.isWritablePrimary === true,
    router: hello.msg === 'isdbgrid',
    users: auth.authenticatedUsers || [],
    privileges: (auth.authenticatedUserPrivileges || []).map((it) => ({
      any: it.resource.anyResource === true,
      database: it.resource.db === undefined ? null : it.resource.db,
      collection: it.resource.collection === undefined ? null : it.resource.collection,
      actions: it.actions,
    })),
    databases: names,
    collections: infos(db),
    claims: claims(db),
    drills: drills.filter((name) => isLeft(claims(database(name)), request.database)),
  };
}

// Whether a database of these claims is what a dead restore of that one has left.
function isLeft(found, of) {
  return found.some((it) => it.of === of) && !found.some((it) => it.alive);
}

// Takes away what one restore has made, unless its exchange has begun.
function clear(db, hex) {
  if (marker(db, hex).findOne({ _id: 'plan' }) !== null) return false;
  for (const it of infos(db)) {
    if (it.name.startsWith(OURS + hex + '_')) db.getCollection(it.name).drop();
  }
  marker(db, hex).drop();
  return true;
}

// Finishes or clears what dead restores have left, and says whose the new one is. What a living one has made is let be; two
// in the same place don't go together, and each looks for the other after it has said that it is there.
function begin() {
  const notes = [];
  const cleared = [];
  const live = database(request.of);
  const claim = { of: request.of, since: request.since };
  if (request.in_place) beat(live, request.hex, claim);
  const others = claims(live).filter((it) => it.hex !== request.hex && (it.of === null || it.of === request.of));
  const living = others.find((it) => it.alive);
  if (request.in_place && living !== undefined) {
    marker(live, request.hex).drop();
    return { notes, cleared, living };
  }
  for (const it of others.filter((it) => !it.alive)) {
    if (!it.swapping) {
      clear(live, it.hex);
      cleared.push(it.hex);
      notes.push('removed the collections that an interrupted restore had left');
    } else if (request.in_place) {
      exchange(live, it.hex);
      cleared.push(it.hex);
      notes.push('finished a restore that had been interrupted');
    }
  }
  for (const it of infos(live)) {
    // A tool that outlived its restore may have made it again.
    const found = /^__restoring_([0-9a-f]{8})_/.exec(it.name);
    if (found && marker(live, found[1]).findOne({ _id: 'claim' }) === null) live.getCollection(it.name).drop();
  }
  for (const name of request.dead) {
    const left = claims(database(name));
    if (isLeft(left, request.of)) {
      database(name).dropDatabase();
      cleared.push(...left.map((it) => it.hex));
      notes.push('dropped the database ' + name + ', which an interrupted restore had left');
    }
  }
  if (!request.in_place) beat(database(request.into), request.hex, claim);
  return { notes, cleared };
}

// What has been loaded: documents, indexes. Views are tried under another name.
function loaded() {
  const db = database(request.database);
  const found = infos(db).filter((it) => it.name.startsWith(request.prefix) && !it.name.startsWith(MARKER));
  const collections = found.map((it) => {
    const collection = db.getCollection(it.name);
    return {
      name: it.name.slice(request.prefix.length),
      identity: it.identity,
      documents: collection.countDocuments({}),
      indexes: collection.getIndexes().map((index) => index.name),
    };
  });
  if (request.prefix !== '') {
    for (const view of request.views) {
      const name = request.prefix + view.name;
      createView(db, view, name);
      db.getCollection(name).drop();
    }
  }
  return { collections };
}

function createView(db, view, name) {
  // Every number as the archive has it: a relaxed one would be a double where it was none, and not to the last digit.
  const options = EJSON.parse(view.metadata, { relaxed: false }).options;
  db.runCommand({ create: name, viewOn: options.viewOn, pipeline: options.pipeline, ...(options.collation ? { collation: options.collation } : {}) });
}

// Puts the loaded collections into the places of the live ones, one by one, as the plan says; it stands until all is done.
function exchange(db, hex) {
  const prefix = OURS + hex + '_';
  const planned = () => marker(db, hex).findOne({ _id: 'plan' });
  const plan = planned();
  if (plan === null) return;
  const now = infos(db);
  for (const name of plan.names) {
    if (!now.some((it) => it.name === prefix + name)) continue;
    if (planned() === null) return;
    if (name === CODE) {
      refill(db.getCollection(prefix + name), db.getCollection(name));
      continue;
    }
    if (now.some((it) => it.name === name && it.type !== 'collection')) db.getCollection(name).drop();
    try {
      admin.runCommand({ renameCollection: db.getName() + '.' + prefix + name, to: db.getName() + '.' + name, dropTarget: true });
    } catch (error) {
      // Another has done it in between.
      if (infos(db).some((it) => it.name === prefix + name)) throw error;
    }
  }
  for (const name of plan.extras) {
    if (planned() === null) return;
    db.getCollection(name).drop();
  }
  // All go before the first comes: an old one on a new one could close a circle.
  for (const view of plan.views) {
    if (planned() === null) return;
    db.getCollection(view.name).drop();
  }
  for (const view of plan.views) {
    if (planned() === null) return;
    createView(db, view, view.name);
  }
  marker(db, hex).drop();
}

// Servers neither drop a collection of code nor rename another onto it.
function refill(from, to) {
  const ids = [];
  for (const one of from.find().toArray()) {
    to.replaceOne({ _id: one._id }, one, { upsert: true });
    ids.push(one._id);
  }
  to.deleteMany({ _id: { $nin: ids } });
  from.drop();
}

// Why what was loaded and counted can't take its places; nothing if it can. To count again could take longer than this step may.
function unfit(db, prefix) {
  if (marker(db, request.hex).findOne({ _id: 'claim' }) === null) return 'its mark is gone';
  const now = infos(db);
  for (const it of request.collections) {
    const found = now.find((one) => one.name === prefix + it.name);
    if (found === undefined) return 'the collection ' + it.name + ' is gone';
    if (found.identity !== it.identity) return 'the collection ' + it.name + ' is another one';
  }
  return null;
}

// The plan is written only while all that was loaded is there. Asked again, whether it was written is not known: without a
// mark, the collections in their places say that all was done.
function swap() {
  const db = database(request.database);
  if (marker(db, request.hex).findOne({ _id: 'plan' }) === null) {
    const now = infos(db);
    const names = now.map((it) => it.name);
    const there = (it) => now.some((one) => one.name === it.name && one.identity !== null && one.identity === it.identity);
    if (request.again && !names.includes(MARKER + request.hex) && request.collections.every((it) => it.name === CODE || there(it))) return {};
    const refused = unfit(db, OURS + request.hex + '_');
    if (refused !== null) return { refused };
    const planned = request.collections.map((it) => it.name);
    const kept = planned.concat(request.views.map((it) => it.name));
    const extras = names.filter((name) => !kept.includes(name) && !name.startsWith('system.') && !name.startsWith(OURS));
    marker(db, request.hex).insertOne({ _id: 'plan', names: planned, extras, views: request.views });
    // Without it the exchange would change nothing, and end well: the server reads what is older.
    if (marker(db, request.hex).findOne({ _id: 'plan' }) === null) throw new Error('the plan is written, and the server does not show it');
  }
  exchange(db, request.hex);
  return {};
}

// Into a database of its own: nothing but the mark is left to remove.
function settle() {
  const mark = marker(database(request.database), request.hex);
  if (mark.findOne({ _id: 'claim' }) === null) return { refused: 'its mark is gone' };
  mark.drop();
  return {};
}

// A database that a restore has made for itself.
function drop() {
  const db = database(request.database);
  if (marker(db, request.hex).findOne({ _id: 'claim' }) !== null) db.dropDatabase();
  return {};
}

// What the user's expression gives, as a person would write it down.
function answer() {
  const found = check(database(request.database));
  if (found === null || found === undefined) return 'null';
  if (typeof found !== 'object') return String(found);
  return EJSON.stringify(typeof found.toArray === 'function' ? found.toArray() : found);
}

const actions = {
  look,
  begin,
  loaded,
  swap,
  drop,
  check: answer,
  settle,
  beat: () => ({ matched: beat(database(request.database), request.hex).matchedCount }),
  clear: () => ({ done: clear(database(request.database), request.hex) }),
};
print('voxeltron-answer:' + JSON.stringify(actions[request.action]()));
