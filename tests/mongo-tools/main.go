// Stand-ins for mongodump and mongorestore, for tests in containers, where the real ones can't be installed: the
// same options, as far as the engine uses them, the same archive format, the password from standard input, and the same
// driver. Written after the format's published description and what the real ones are known to do. One program: the name by
// which it is called says which.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const magic = 0x8199e26d

var (
	terminator = []byte{0xff, 0xff, 0xff, 0xff}
	table      = crc64.MakeTable(crc64.ECMA)
	ctx        = context.Background()
)

type header struct {
	Concurrent int32  `bson:"concurrent_collections"`
	Version    string `bson:"version"`
	Server     string `bson:"server_version"`
	Tool       string `bson:"tool_version"`
}

type meta struct {
	DB         string `bson:"db"`
	Collection string `bson:"collection"`
	Metadata   string `bson:"metadata"`
	Size       int    `bson:"size"`
	Type       string `bson:"type"`
}

type section struct {
	DB         string `bson:"db"`
	Collection string `bson:"collection"`
	EOF        bool   `bson:"EOF"`
	CRC        int64  `bson:"CRC"`
}

type metadata struct {
	Options bson.D   `bson:"options,omitempty"`
	Indexes []bson.D `bson:"indexes"`
	UUID    string   `bson:"uuid,omitempty"`
	Name    string   `bson:"collectionName"`
	Type    string   `bson:"type,omitempty"`
}

// Options: --name=value or --name value; those without a value are in `flags`.
type arguments struct {
	flags map[string]bool
	lists map[string][]string
}

func parse(words []string) (arguments, error) {
	args := arguments{map[string]bool{}, map[string][]string{}}
	switches := map[string]bool{"archive": true, "stopOnError": true, "drop": true, "version": true, "quiet": true, "preserveUUID": true}
	valued := "uri db nsFrom nsTo nsInclude nsExclude excludeCollection excludeCollectionsWithPrefix numParallelCollections " +
		"serverSelectionTimeout numInsertionWorkersPerCollection"
	for at := 0; at < len(words); at++ {
		name, value, given := strings.Cut(strings.TrimPrefix(words[at], "--"), "=")
		switch {
		case !strings.HasPrefix(words[at], "--"):
			return args, fmt.Errorf("positional arguments not allowed: %v", words[at])
		case switches[name] && !given:
			args.flags[name] = true
		case strings.Contains(" "+valued+" ", " "+name+" "):
			if !given {
				if at++; at >= len(words) {
					return args, fmt.Errorf("expected argument for flag `--%v'", name)
				}
				value = words[at]
			}
			args.lists[name] = append(args.lists[name], value)
		default:
			return args, fmt.Errorf("unknown option %q", name)
		}
	}
	return args, nil
}

func (a arguments) one(name string) string {
	if list := a.lists[name]; len(list) > 0 {
		return list[len(list)-1]
	}
	return ""
}

// A user without a password is asked for it on standard input, byte by byte, up to the end of the line.
func connect(args arguments) (*mongo.Client, error) {
	set := options.Client().ApplyURI(args.one("uri"))
	if set.Auth != nil && set.Auth.Username != "" && !set.Auth.PasswordSet && set.Auth.AuthMechanism != "MONGODB-X509" {
		fmt.Fprint(os.Stderr, "Enter password for mongo user:")
		var password []byte
		for one := make([]byte, 1); ; {
			if n, err := os.Stdin.Read(one); n == 0 || err != nil || one[0] == '\n' || one[0] == '\r' {
				break
			}
			password = append(password, one[0])
		}
		fmt.Fprintln(os.Stderr)
		set.Auth.Password, set.Auth.PasswordSet = string(password), true
	}
	wait := 30 * time.Second
	if seconds, err := strconv.Atoi(args.one("serverSelectionTimeout")); err == nil {
		wait = time.Duration(seconds) * time.Second
	}
	client, err := mongo.Connect(set.SetServerSelectionTimeout(wait))
	if err == nil {
		err = client.Ping(ctx, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("can't create session: failed to connect to %v: %v", args.one("uri"), err)
	}
	return client, nil
}

func logf(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "%s\t%s\n", time.Now().Format("2006-01-02T15:04:05.000-0700"), fmt.Sprintf(format, values...))
}

// ---------------------------------------------------------------------------------------------------------- dump

type source struct {
	meta   meta
	cursor *mongo.Cursor
	sum    hash.Hash64
	count  int
}

func dump(args arguments) error {
	client, err := connect(args)
	if err != nil {
		return err
	}
	db := client.Database(args.one("db"))
	var build struct{ Version string }
	if err := db.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&build); err != nil {
		return err
	}
	specs, err := db.ListCollectionSpecifications(ctx, bson.D{})
	if err != nil {
		return fmt.Errorf("error getting collections for database `%v`: %v", db.Name(), err)
	}
	var sources []*source
	for _, spec := range specs {
		if skipped(spec.Name, args) {
			continue
		}
		one, err := prelude(db, spec)
		if err != nil {
			return err
		}
		sources = append(sources, one)
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	out.Write(binary.LittleEndian.AppendUint32(nil, magic))
	write := func(value any) {
		bytes, _ := bson.Marshal(value)
		out.Write(bytes)
	}
	write(header{4, "0.1", build.Version, toolVersion})
	for _, one := range sources {
		write(one.meta)
	}
	out.Write(terminator)
	// Up to four collections take turns, as the real one's do.
	current := ""
	for open := []*source{}; len(open) > 0 || len(sources) > 0; {
		for len(open) < 4 && len(sources) > 0 {
			open, sources = append(open, sources[0]), sources[1:]
		}
		var left []*source
		for _, one := range open {
			ended, err := turn(db, one, &current, out, write)
			if err != nil {
				return err
			}
			if !ended {
				left = append(left, one)
			}
		}
		open = left
	}
	return out.Flush()
}

func skipped(name string, args arguments) bool {
	for _, prefix := range args.lists["excludeCollectionsWithPrefix"] {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, other := range args.lists["excludeCollection"] {
		if name == other {
			return true
		}
	}
	return strings.HasPrefix(name, "system.") && name != "system.js" || strings.Contains(name, "$")
}

func prelude(db *mongo.Database, spec mongo.CollectionSpecification) (*source, error) {
	about := metadata{Indexes: []bson.D{}, Name: spec.Name, Type: spec.Type}
	if spec.UUID != nil {
		about.UUID = fmt.Sprintf("%x", spec.UUID.Data)
	}
	if err := bson.Unmarshal(spec.Options, &about.Options); err != nil {
		return nil, err
	}
	if spec.Type != "view" {
		cursor, err := db.Collection(spec.Name).Indexes().List(ctx)
		if err != nil {
			return nil, err
		}
		if err := cursor.All(ctx, &about.Indexes); err != nil {
			return nil, err
		}
	}
	json, err := bson.MarshalExtJSON(about, true, false)
	return &source{meta: meta{db.Name(), spec.Name, string(json), 0, spec.Type}, sum: crc64.New(table)}, err
}

func turn(db *mongo.Database, one *source, current *string, out *bufio.Writer, write func(any)) (bool, error) {
	var err error
	if one.cursor == nil && one.meta.Type != "view" {
		logf("writing %v.%v to archive on stdout", one.meta.DB, one.meta.Collection)
		if one.cursor, err = db.Collection(one.meta.Collection).Find(ctx, bson.D{}); err != nil {
			return false, err
		}
	}
	name := one.meta.Collection
	if *current != name {
		if *current != "" {
			out.Write(terminator)
		}
		write(section{DB: one.meta.DB, Collection: name})
		*current = name
	}
	for n := 0; n < 50 && one.cursor != nil; n++ {
		if !one.cursor.Next(ctx) {
			if err := one.cursor.Err(); err != nil {
				return false, fmt.Errorf("error reading collection: %v", err)
			}
			one.cursor = nil
			break
		}
		one.sum.Write(one.cursor.Current)
		one.count++
		if _, err := out.Write(one.cursor.Current); err != nil {
			return false, err
		}
	}
	if one.cursor != nil {
		return false, nil
	}
	out.Write(terminator)
	write(section{one.meta.DB, name, true, int64(one.sum.Sum64())})
	out.Write(terminator)
	*current = ""
	logf("done dumping %v.%v (%v documents)", one.meta.DB, name, one.count)
	return true, nil
}

// ------------------------------------------------------------------------------------------------------- restore

// The next document, or nil for a terminator.
func next(in *bufio.Reader) (bson.Raw, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(size[:])
	if length == 0xffffffff {
		return nil, nil
	}
	if length < 5 || length > 17<<20 {
		return nil, fmt.Errorf("corruption found in archive; %v is neither a valid bson length nor a archive terminator", length)
	}
	raw := make([]byte, length)
	copy(raw, size[:])
	if _, err := io.ReadFull(in, raw[4:]); err != nil {
		return nil, fmt.Errorf("corruption found in archive; read bson ( %v )", err)
	}
	return raw, nil
}

// A pattern with * as an expression and back: `\*` and `\\` stand for themselves.
func renamer(from, to string) func(string) string {
	var expression strings.Builder
	for at := 0; at < len(from); at++ {
		switch {
		case from[at] == '\\' && at+1 < len(from):
			at++
			expression.WriteString(regexp.QuoteMeta(from[at : at+1]))
		case from[at] == '*':
			expression.WriteString("(.*?)")
		default:
			expression.WriteString(regexp.QuoteMeta(from[at : at+1]))
		}
	}
	pattern := regexp.MustCompile("(?s)^" + expression.String() + "$")
	return func(name string) string {
		found := pattern.FindStringSubmatch(name)
		if found == nil {
			return name
		}
		var out strings.Builder
		for at, n := 0, 1; at < len(to); at++ {
			switch {
			case to[at] == '\\' && at+1 < len(to):
				at++
				out.WriteByte(to[at])
			case to[at] == '*' && n < len(found):
				out.WriteString(found[n])
				n++
			default:
				out.WriteByte(to[at])
			}
		}
		return out.String()
	}
}

type target struct {
	about   metadata
	to      *mongo.Collection
	batch   []any
	bytes   int
	sum     hash.Hash64
	ended   bool
	skipped bool
	made    bool
}

func restore(args arguments) (good, bad int, err error) {
	client, err := connect(args)
	if err != nil {
		return 0, 0, err
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	var first [4]byte
	if _, err := io.ReadFull(in, first[:]); err != nil || binary.LittleEndian.Uint32(first[:]) != magic {
		return 0, 0, errors.New("stream or file does not appear to be a mongodump archive")
	}
	if _, err := next(in); err != nil {
		return 0, 0, err
	}
	// The last that fits wins.
	rename := func(name string) string {
		for at := len(args.lists["nsFrom"]) - 1; at >= 0; at-- {
			if to := renamer(args.lists["nsFrom"][at], args.lists["nsTo"][at])(name); to != name {
				return to
			}
		}
		return name
	}
	targets := map[string]*target{}
	for {
		raw, err := next(in)
		if err != nil {
			return 0, 0, err
		}
		if raw == nil {
			break
		}
		var one meta
		if err := bson.Unmarshal(raw, &one); err != nil {
			return 0, 0, err
		}
		name := one.DB + "." + one.Collection
		db, collection, _ := strings.Cut(rename(name), ".")
		it := &target{to: client.Database(db).Collection(collection), sum: crc64.New(table)}
		for _, pattern := range args.lists["nsExclude"] {
			it.skipped = it.skipped || strings.NewReplacer(`\\`, `\`, `\*`, `*`).Replace(pattern) == name
		}
		if err := bson.UnmarshalExtJSON([]byte(one.Metadata), true, &it.about); err != nil {
			return 0, 0, fmt.Errorf("error parsing metadata from archive: %v", err)
		}
		targets[name] = it
	}
	good, bad, err = load(in, targets, args.flags["stopOnError"])
	if err != nil {
		return good, bad, err
	}
	for name, it := range targets {
		if !it.ended {
			return good, bad, fmt.Errorf("archive finished before all collections were seen (%v)", name)
		}
	}
	for _, it := range targets {
		if err := it.index(); err != nil {
			return good, bad, err
		}
	}
	return good, bad, nil
}

func load(in *bufio.Reader, targets map[string]*target, stop bool) (good, bad int, err error) {
	flush := func(it *target) error {
		if len(it.batch) == 0 {
			return nil
		}
		// One by one when some fail, as the real one does unless it is told to stop.
		result, err := it.to.InsertMany(ctx, it.batch, options.InsertMany().SetOrdered(stop))
		inserted := 0
		if result != nil {
			inserted = len(result.InsertedIDs)
		}
		var bulk mongo.BulkWriteException
		if errors.As(err, &bulk) {
			inserted = len(it.batch) - len(bulk.WriteErrors)
			bad += len(bulk.WriteErrors)
			if !stop {
				logf("continuing through error: %v", bulk.WriteErrors[0].Message)
				err = nil
			}
		}
		good += inserted
		it.batch, it.bytes = nil, 0
		if err != nil {
			return fmt.Errorf("%v.%v: error restoring from archive on stdin: %v", it.to.Database().Name(), it.to.Name(), err)
		}
		return nil
	}
	for {
		raw, err := next(in)
		if err == io.EOF {
			return good, bad, nil
		}
		if err != nil {
			return good, bad, err
		}
		var head section
		if raw == nil || bson.Unmarshal(raw, &head) != nil || head.Collection == "" {
			return good, bad, errors.New("corruption found in archive; consecutive terminators / headerless blocks are not allowed")
		}
		it := targets[head.DB+"."+head.Collection]
		if it == nil || it.ended {
			return good, bad, fmt.Errorf("error demultiplexing archive; namespace header for unknown namespace %v", head.Collection)
		}
		if !it.made && !it.skipped {
			if err := it.create(); err != nil {
				return good, bad, err
			}
		}
		for {
			raw, err := next(in)
			if err != nil {
				return good, bad, fmt.Errorf("corruption found in archive; ParserConsumer.BodyBSON() ( %v )", err)
			}
			if raw == nil {
				break
			}
			it.sum.Write(raw)
			if it.skipped {
				continue
			}
			it.batch, it.bytes = append(it.batch, raw), it.bytes+len(raw)
			if len(it.batch) >= 1000 || it.bytes > 8<<20 {
				if err := flush(it); err != nil {
					return good, bad, err
				}
			}
		}
		if head.EOF {
			if err := flush(it); err != nil {
				return good, bad, err
			}
			if sum := int64(it.sum.Sum64()); sum != head.CRC {
				return good, bad, fmt.Errorf("CRC mismatch for namespace %v, %v!=%v", head.Collection, sum, head.CRC)
			}
			it.ended = true
			logf("finished restoring %v.%v", it.to.Database().Name(), it.to.Name())
		}
	}
}

func (it *target) create() error {
	it.made = true
	command := append(bson.D{{Key: "create", Value: it.to.Name()}}, it.about.Options...)
	if err := it.to.Database().RunCommand(ctx, command).Err(); err != nil {
		return fmt.Errorf("error creating collection %v.%v: %v", it.to.Database().Name(), it.to.Name(), err)
	}
	return nil
}

func (it *target) index() error {
	var indexes []bson.D
	for _, one := range it.about.Indexes {
		kept := bson.D{}
		primary := false
		for _, field := range one {
			if field.Key == "name" && field.Value == "_id_" {
				primary = true
			}
			if field.Key != "ns" && field.Key != "v" {
				kept = append(kept, field)
			}
		}
		if !primary {
			indexes = append(indexes, kept)
		}
	}
	if len(indexes) == 0 || it.skipped {
		return nil
	}
	command := bson.D{{Key: "createIndexes", Value: it.to.Name()}, {Key: "indexes", Value: indexes}}
	if err := it.to.Database().RunCommand(ctx, command).Err(); err != nil {
		name := it.to.Database().Name() + "." + it.to.Name()
		return fmt.Errorf("%v: error creating indexes for %v: createIndex error: %v", name, name, err)
	}
	return nil
}

const toolVersion = "100.18.0"

func main() {
	name := filepath.Base(os.Args[0])
	args, err := parse(os.Args[1:])
	if err != nil {
		logf("error parsing command line options: %v", err)
		os.Exit(1)
	}
	if args.flags["version"] {
		fmt.Printf("%v version: %v\nstand-in: of the tests\n", name, toolVersion)
		return
	}
	if name == "mongodump" {
		err = dump(args)
	} else {
		var good, bad int
		good, bad, err = restore(args)
		if err != nil {
			logf("Failed: %v", err)
		}
		logf("%v document(s) restored successfully. %v document(s) failed to restore.", good, bad)
	}
	if err != nil {
		if name == "mongodump" {
			logf("Failed: %v", err)
		}
		os.Exit(1)
	}
}
