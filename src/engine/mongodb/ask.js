// What the engine has the shell do. In: `uri` and `request`, which stand before this text, and the password in the
// environment. Out: one line with the answer. Everything here can be stopped at any point and done again.

const OURS = '__restoring_';
const MARKER = OURS + 'marker_';
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
  return db.getCollectionInfos().map((it) => ({ name: it.name, type: it.type || 'collection' }));
}

function marker(db, hex) {
  return db.getCollection(MARKER + hex);
}

// The restores that have left something in a database.
function claims(db) {
  return infos(db)
    .filter((it) => it.name.startsWith(MARKER))
    .map((it) => {
      const claim = db.getCollection(it.name).findOne({ _id: 'claim' });
      const plan = db.getCollection(it.name).findOne({ _id: 'plan' });
      return { hex: it.name.slice(MARKER.length), of: claim ? claim.of : null, swapping: plan !== null };
    });
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
    drills: drills.filter((name) => claims(database(name)).some((it) => it.of === request.database)),
  };
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

// Finishes or clears what dead restores have left, and says whose the new one is.
function begin() {
  const notes = [];
  const live = database(request.of);
  for (const it of claims(live)) {
    if (it.of !== null && it.of !== request.of) continue;
    if (!it.swapping) {
      clear(live, it.hex);
      notes.push('removed the collections that an interrupted restore had left');
    } else if (request.in_place) {
      exchange(live, it.hex);
      notes.push('finished a restore that had been interrupted');
    }
  }
  for (const it of infos(live)) {
    // A tool that outlived its restore may have made it again.
    const found = /^__restoring_([0-9a-f]{8})_/.exec(it.name);
    if (found && marker(live, found[1]).findOne({ _id: 'claim' }) === null) live.getCollection(it.name).drop();
  }
  for (const name of request.dead) {
    if (claims(database(name)).some((it) => it.of === request.of)) {
      database(name).dropDatabase();
      notes.push('dropped the database ' + name + ', which an interrupted restore had left');
    }
  }
  marker(database(request.into), request.hex).insertOne({ _id: 'claim', of: request.of, since: request.since });
  return { notes };
}

// What has been loaded: documents, indexes. Views are tried under another name.
function loaded() {
  const db = database(request.database);
  const found = infos(db).filter((it) => it.name.startsWith(request.prefix) && !it.name.startsWith(MARKER));
  const collections = found.map((it) => {
    const collection = db.getCollection(it.name);
    return {
      name: it.name.slice(request.prefix.length),
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
  const options = EJSON.parse(view.metadata).options;
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
  for (const view of plan.views) {
    if (planned() === null) return;
    db.getCollection(view.name).drop();
    createView(db, view, view.name);
  }
  marker(db, hex).drop();
}

function swap() {
  const db = database(request.database);
  if (request.plan) {
    const names = infos(db).map((it) => it.name);
    const kept = request.plan.names.concat(request.plan.views.map((it) => it.name));
    const extras = names.filter((name) => !kept.includes(name) && !name.startsWith('system.') && !name.startsWith(OURS));
    marker(db, request.hex).insertOne({ _id: 'plan', extras, ...request.plan });
  }
  exchange(db, request.hex);
  return {};
}

// A database that a restore has made for itself.
function drop() {
  const db = database(request.database);
  if (claims(db).some((it) => it.hex === request.hex)) db.dropDatabase();
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
  // Into a database of its own: nothing but the mark is left to remove.
  settle: () => ({ done: marker(database(request.database), request.hex).drop() }),
  clear: () => ({ done: clear(database(request.database), request.hex) }),
};
print('voxeltron-answer:' + JSON.stringify(actions[request.action]()));
