// A server that keeps the rules that FerretDB does not: views are no collections, and may close no circle; a collection of
// code can't be dropped. `store` is what it holds, `said` what it was told.
const said = [];
const store = {};
const connect = () => ({ getSiblingDB: (name) => (name === 'admin' ? { runCommand: command } : shop) });

function refuse(why) {
  throw new Error('the server says no: ' + why);
}

function circles(name, on) {
  for (let at = on; store[at] !== undefined && store[at].viewOn !== undefined; at = store[at].viewOn) if (at === name) return true;
  return on === name;
}

function command(request) {
  if (request.hello) return { localTime: new Date() };
  if (request.renameCollection) {
    const [from, to] = [request.renameCollection, request.to].map((name) => name.slice('shop.'.length));
    said.push('rename ' + from + ' ' + to);
    if (store[from] === undefined || store[from].viewOn !== undefined) refuse('no collection to rename');
    if (to === 'system.js' || (store[to] || {}).viewOn !== undefined) refuse(to + ' can not be dropped');
    store[to] = store[from];
    delete store[from];
    return { ok: 1 };
  }
  said.push('view ' + request.create + ' on ' + request.viewOn);
  if (store[request.create] !== undefined) refuse('it exists');
  if (circles(request.create, request.viewOn)) refuse('a circle of views');
  store[request.create] = { viewOn: request.viewOn, pipeline: request.pipeline, collation: request.collation };
  return { ok: 1 };
}

const shop = {
  getName: () => 'shop',
  runCommand: command,
  getCollectionInfos: () =>
    Object.keys(store).map((name) => ({ name, type: store[name].viewOn ? 'view' : 'collection', info: { uuid: store[name].uuid } })),
  getCollection: (name) => ({
    find: () => ({ toArray: () => store[name].docs }),
    findOne: (query) => ((store[name] || { docs: [] }).docs || []).find((one) => one._id === query._id) || null,
    countDocuments: () => store[name].docs.length,
    getIndexes: () => [{ name: '_id_' }],
    insertOne: (one) => (store[name] = store[name] || { docs: [] }).docs.push(one),
    replaceOne: (query, one) => {
      const docs = (store[name] = store[name] || { docs: [] }).docs;
      docs.splice(0, docs.length, ...docs.filter((it) => it._id !== query._id), one);
    },
    deleteMany: (query) => {
      store[name].docs = store[name].docs.filter((it) => query._id.$nin.includes(it._id));
    },
    drop: () => {
      if (name === 'system.js') refuse('system.js can not be dropped');
      delete store[name];
    },
  }),
};
