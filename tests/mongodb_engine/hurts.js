// Data that hurts, as far as the server takes it. `d` is the database.
const u = 'Ünï 😀 \u0000 end \u2028 "q" \\ $x.y';
const bytes = Buffer.from([...Array(256).keys()]);
d.types.insertMany([
  { _id: 1, double: Double(1.5), zero: Double(-0), nan: NaN, infinite: Infinity, tiny: Double(5e-324), whole: Double(3) },
  { _id: 2, text: u, [u.replace(/[$.\u0000]/g, '_')]: u, empty: '', '': 'no name' },
  { _id: 3, object: { a: { b: { c: [1, [2, [3, { d: null }]]] } } }, array: [], none: {} },
  { _id: 4, generic: new Binary(bytes, 0), func: new Binary(bytes, 1), uuid: UUID('00112233-4455-6677-8899-aabbccddeeff'), md5: new Binary(bytes.subarray(0, 16), 5), own: new Binary(bytes, 128) },
  { _id: 5, id: ObjectId('00112233445566778899aabb'), yes: true, no: false, nothing: null },
  { _id: 6, epoch: new Date(0), before: new Date(-62135596800000), after: new Date(253402300799999) },
  { _id: 7, expression: new RegExp('^a.*"/ü$', 'im'), code: Code('function () { return "ü"; }') },
  { _id: 8, int: Int32(-2147483648), long: Long('9223372036854775807'), least: Long('-9223372036854775808'), stamp: Timestamp({ t: 4294967295, i: 1 }) },
  { _id: 9, decimal: Decimal128('1234567890123456789012345678901234E-6'), nan: Decimal128('NaN'), minus: Decimal128('-0') },
  { _id: 10, low: MinKey(), high: MaxKey() },
  { _id: { compound: 1, key: [1, 'x'] }, v: 1 },
  { _id: 'a string', v: 1 },
  { _id: UUID('00112233-4455-6677-8899-aabbccddeeff'), v: 1 },
  { _id: 'rare', old: new Binary(bytes, 2), oldUuid: new Binary(bytes.subarray(0, 16), 3), sealed: new Binary(bytes, 6), column: new Binary(bytes, 7), sensitive: new Binary(bytes, 8), vector: new Binary(bytes.subarray(0, 6), 9), scope: Code('return a', { a: 1 }), ref: DBRef('types', 1) },
]);
d.big.insertOne({ _id: 1, t: 'x'.repeat(16 * 1024 * 1024 - 60) });
d.indexed.insertMany([...Array(500).keys()].map((i) => ({ _id: i, a: i, b: -i, e: i % 7, when: new Date(), words: 'lorem ipsum ' + i })));
d.indexed.createIndex({ a: 1 }, { unique: true });
d.indexed.createIndex({ b: 1, e: -1 }, { name: 'two of "them" ü' });
d.indexed.createIndex({ when: 1 }, { expireAfterSeconds: 86400 });
d.indexed.createIndex({ e: 1 }, { partialFilterExpression: { e: { $gt: 3 } } });
d.indexed.createIndex({ words: 'text' });
d.indexed.createIndex({ a: 'hashed' });
d.indexed.createIndex({ sparse: 1 }, { sparse: true });
d.indexed.createIndex({ place: '2dsphere' });
d.wild.insertMany([{ x: { y: 1 } }]);
d.wild.createIndex({ '$**': 1 });
d.createCollection('empty');
d.createCollection('capped', { capped: true, size: 100000, max: 50 });
d.capped.insertMany([...Array(20).keys()].map((i) => ({ _id: i })));
d.createCollection('rules', { validator: { $jsonSchema: { required: ['a'] } } });
d.rules.insertOne({ a: 1 });
for (const name of ['with space', 'ünï😀', 'per%cent', 'q\'uote"`', 'a*b', 'back\\slash', 'sl/ash', 'line\nend', 'x'.repeat(150), '1', '__proto__'])
  d.getCollection(name).insertOne({ name });
for (let i = 0; i < 60; i++) d.getCollection('many_' + i).insertOne({ i });
