-- Data that hurts. Run inside an empty database as a superuser; roles vx_owner and vx_reader exist.
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE SCHEMA crypto;
CREATE EXTENSION pgcrypto SCHEMA crypto;
CREATE SCHEMA "Sch.ema ""q"" \ ü=";
ALTER SCHEMA "Sch.ema ""q"" \ ü=" OWNER TO vx_owner;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s \ "fine"', '😀');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);

CREATE TABLE types (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  b bool, i2 smallint, i4 int, i8 bigint, n numeric, f4 real, f8 double precision, m money,
  c char(5), v varchar(20), t text, ci citext, h hstore, bin bytea,
  ts timestamp, tz timestamptz, d date, tm time, tmz timetz, iv interval,
  u uuid, ip inet, net cidr, mac macaddr, mac8 macaddr8, bits bit(3), vbits varbit,
  j json, jb jsonb, x xml, tsv tsvector, tsq tsquery,
  p point, l line, ls lseg, bx box, pa path, po polygon, ci2 circle,
  ai int[], at text[], ai2 int[][], r int4range, mr int8multirange, fr floatrange, em mood, eme mood[], pr pair, ev even,
  lsn pg_lsn, ob oid, rc regclass,
  gen int GENERATED ALWAYS AS (i4 * 2) STORED
);
INSERT INTO types (b, i2, i4, i8, n, f4, f8) VALUES
  (true, 32767, 1073741823, 9223372036854775807, 'NaN', 'Infinity', '-Infinity'),
  (false, -32768, -1073741824, -9223372036854775808, 'Infinity', 'NaN', '-0'),
  (NULL, NULL, NULL, NULL, '-Infinity', 1.17549435e-38, 4.9e-324),
  (true, 0, 0, 0, 0.1234567890123456789012345678901234567890, 3.4028235e38, 1.7976931348623157e308);
INSERT INTO types (m, c, v, t, ci, h) VALUES
  (12.5, 'ab', 'tab	here', E'line\nfeed\r\nback\\slash \\. \x01 😀 \u00e9', 'CaSe', 'a=>1, "b c"=>NULL'),
  (NULL, '', '', '', '', ''),
  (NULL, NULL, '\N', '\.', '\\N', NULL);
INSERT INTO types (t) SELECT string_agg(chr(n), '') FROM generate_series(1, 127) n;
INSERT INTO types (t) SELECT repeat(chr(x), 3) FROM unnest(ARRAY[128, 2047, 2048, 65533, 65536, 1114109]) x;
INSERT INTO types (bin) SELECT decode(string_agg(lpad(to_hex(n), 2, '0'), '' ORDER BY n), 'hex') FROM generate_series(0, 255) n;
INSERT INTO types (bin, t) VALUES ('', repeat('long ', 100000));
INSERT INTO types (ts, tz, d, tm, tmz, iv) VALUES
  ('infinity', '-infinity', 'infinity', '24:00', '23:59:59.999999-15:59', '1 year -2 mons 3 days -04:05:06.789'),
  ('4713-01-01 BC', '294276-12-31 23:59:59.999999+00', '5874897-12-31', '00:00', '00:00+14', '-178000000 years');
INSERT INTO types (u, ip, net, mac, mac8, bits, vbits, j, jb, x, tsv, tsq, lsn, ob, rc) VALUES
  ('00000000-0000-0000-0000-000000000000', '::ffff:1.2.3.4/128', '10.0.0.0/8', '00:00:00:00:00:01', '00:00:00:00:00:00:00:01',
   B'101', B'', '{"a" : [1, 1,  null], "a": "\u00e9"}', '{"z": 1e400, "a": ["\\", "\n"]}', '<a b="&lt;">ü<![CDATA[ ]]></a>',
   'fat:2 rat:3A', 'fat & (rat | !cat)', '16/B374D848', 4294967295, 'types');
INSERT INTO types (p, l, ls, bx, pa, po, ci2) VALUES
  ('(1,2)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),1e10>');
INSERT INTO types (ai, at, ai2, r, mr, fr, em, eme, pr, ev) VALUES
  ('[-2:0]={1,NULL,3}', ARRAY['', NULL, 'NULL', '"', '\', ',{}'], '{{1,2},{3,4}}', '[1,)', '{[1,2),[5,9)}', '(-Infinity,1.5]',
   'it''s \ "fine"', '{sad,😀}', ROW(1, 'a,"b"\'), 4),
  ('{}', '{}', '{}', 'empty', '{}', 'empty', 'ok', NULL, ROW(NULL, ''), NULL);

CREATE TABLE empty_table (i int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE unlogged (i int);
INSERT INTO unlogged SELECT generate_series(1, 7);

CREATE TABLE "Sch.ema ""q"" \ ü="."Täble.x ""y"" 'z' \n" ("Col ""1"" \ =" int PRIMARY KEY, "select" text DEFAULT 'it''s');
INSERT INTO "Sch.ema ""q"" \ ü="."Täble.x ""y"" 'z' \n" SELECT n, n::text FROM generate_series(1, 1000) n;
CREATE INDEX "idx "" ü" ON "Sch.ema ""q"" \ ü="."Täble.x ""y"" 'z' \n" (lower("select")) WHERE "Col ""1"" \ =" > 5;

-- Foreign keys in a circle, and to itself.
CREATE TABLE egg (id int PRIMARY KEY, hen int NOT NULL);
CREATE TABLE hen (id int PRIMARY KEY, egg int REFERENCES egg DEFERRABLE INITIALLY DEFERRED, mother int REFERENCES hen);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO egg VALUES (1, 1), (2, 1);
INSERT INTO hen VALUES (2, 2, NULL), (1, 1, 2);
COMMIT;

CREATE TABLE parted (k int, part text, PRIMARY KEY (k, part)) PARTITION BY LIST (part);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b') PARTITION BY HASH (k);
CREATE TABLE parted_b0 PARTITION OF parted_b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_b1 PARTITION OF parted_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT n, (ARRAY['a', 'b', 'c'])[1 + n % 3] FROM generate_series(1, 300) n;

CREATE TABLE parent (i int, note text);
CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'parent');
INSERT INTO child VALUES (2, 'child', 3), (3, 'child', 4);

CREATE SEQUENCE counter START 5 INCREMENT -3 MINVALUE -1000 MAXVALUE 5 CYCLE;
SELECT nextval('counter'), nextval('counter');
CREATE SEQUENCE never_used;

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
  NEW.t := coalesce(NEW.t, '') || 'touched';
  RETURN NEW;
END $f$;
CREATE TABLE triggered (i int, t text);
CREATE TRIGGER touched BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO triggered VALUES (1, 'x'), (2, NULL);
ALTER TABLE triggered DISABLE TRIGGER touched;
CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER audited ON ddl_command_end EXECUTE FUNCTION audit();
CREATE PROCEDURE run_it(INOUT x int) LANGUAGE sql AS 'SELECT x + 1';
CREATE AGGREGATE concat_all (text) (sfunc = textcat, stype = text, initcond = '');

CREATE VIEW seen AS SELECT i4, gen FROM types WHERE i4 > 0;
CREATE MATERIALIZED VIEW counted AS SELECT part, count(*) FROM parted GROUP BY part;
CREATE MATERIALIZED VIEW not_counted AS SELECT 1 AS one WITH NO DATA;
CREATE RULE no_delete AS ON DELETE TO empty_table DO INSTEAD NOTHING;
CREATE STATISTICS stats ON i4, i8 FROM types;
CREATE PUBLICATION pub FOR TABLE egg, hen;

CREATE TABLE guarded (owner name, x int);
INSERT INTO guarded VALUES ('vx_reader', 1), ('other', 2);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded USING (owner = current_user);

SELECT lo_from_bytea(0, '\x00ff0a5c2e0a') AS small \gset
SELECT lo_from_bytea(4711, decode(repeat('00010a', 300000), 'hex'));
SELECT lo_from_bytea(4712, '');
COMMENT ON LARGE OBJECT 4711 IS 'a large one';
ALTER LARGE OBJECT 4711 OWNER TO vx_owner;
GRANT SELECT ON LARGE OBJECT 4711 TO vx_reader;

ALTER TABLE parent OWNER TO vx_owner;
GRANT SELECT, INSERT (i) ON parent TO vx_reader WITH GRANT OPTION;
REVOKE ALL ON FUNCTION touch() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE vx_owner IN SCHEMA public GRANT SELECT ON TABLES TO vx_reader;
GRANT CREATE ON SCHEMA public TO vx_reader;
COMMENT ON TABLE types IS 'it''s a \ comment
over lines';
