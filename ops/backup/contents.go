package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Contents is what a dump of MariaDB holds, by schema: read from the dump
// itself while it is written, and so of the very moment the dump is of. A dump
// that was restored and dumped again has the same contents; that is what a
// verification proves.
type Contents map[string]*Schema

// Schema is one of them.
type Schema struct {
	Tables  map[string]*Table `json:"tables"`
	Objects map[string]string `json:"objects"` // "trigger x", "event y", …: the hash of its definition
}

// Table is one of its tables.
type Table struct {
	Rows       int64  `json:"rows"`
	Data       string `json:"data"`       // hash of the next number and of the rows in their order
	Definition string `json:"definition"` // hash of CREATE TABLE
}

// Compare returns what differs between a dump and one of what it became, in
// words; nothing when they are the same. Rows are left out when asked for.
func (c Contents) Compare(other Contents, rows bool) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(c)) {
		was, is := c[name], other[name]
		if is == nil {
			say("schema %s is missing", name)
			continue
		}
		for _, t := range slices.Sorted(maps.Keys(was.Tables)) {
			a, b := was.Tables[t], is.Tables[t]
			switch {
			case b == nil:
				say("table %s.%s is missing", name, t)
			case a.Definition != b.Definition:
				say("table %s.%s is defined otherwise", name, t)
			case rows && a.Rows != b.Rows:
				say("table %s.%s has %d rows, not %d", name, t, b.Rows, a.Rows)
			case rows && a.Data != b.Data:
				say("table %s.%s has other rows (checksum)", name, t)
			}
		}
		for _, o := range slices.Sorted(maps.Keys(was.Objects)) {
			switch hash, there := is.Objects[o]; {
			case !there:
				say("%s of %s is missing", o, name)
			case hash != was.Objects[o]:
				say("%s of %s is defined otherwise", o, name)
			}
		}
		for _, t := range slices.Sorted(maps.Keys(is.Tables)) {
			if was.Tables[t] == nil {
				say("table %s.%s is there and was not", name, t)
			}
		}
		for _, o := range slices.Sorted(maps.Keys(is.Objects)) {
			if was.Objects[o] == "" {
				say("%s of %s is there and was not", o, name)
			}
		}
	}
	return out
}

// Count returns how many tables, rows and other objects there are.
func (c Contents) Count() (tables int, rows int64, objects int) {
	for _, s := range c {
		tables += len(s.Tables)
		objects += len(s.Objects)
		for _, t := range s.Tables {
			rows += t.Rows
		}
	}
	return tables, rows, objects
}

// scanner reads a dump as mariadb-dump writes it, line by line:
//
//	-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=574;
//	CREATE DATABASE … `crm` …;
//	USE `crm`;
//	CREATE TABLE `a` (            ┐ the definition, up to an empty line or a
//	…                             ┘ setting
//	INSERT INTO `a` VALUES
//	(1,'x'),                      ┐ a row a line: a line break in a value is
//	(2,'y');                      ┘ written \n
//	DELIMITER ;;                  ┐
//	… TRIGGER …                   │ one trigger, event or routine
//	DELIMITER ;                   ┘
//	/*!50001 CREATE ALGORITHM=…   ┐
//	/*!50001 VIEW `v` AS …        ┘ a view
//	-- Dump completed on …        the last line, or the dump is not whole
//
// A form it does not know is an error, not a guess.
type scanner struct {
	contents Contents
	position string // in the binary log, FILE:BYTE
	gtid     string
	server   string
	complete bool // the last line is the trailer
	err      error

	partial []byte
	schema  *Schema
	state   state
	table   *Table
	sum     hash.Hash // of the definition under way
	data    hash.Hash // of the rows of table
	block   strings.Builder
}

type state int

const (
	outside    state = iota
	definition       // of a table
	rows             // of an INSERT
	block            // between two DELIMITER
	view
)

func newScanner() *scanner {
	return &scanner{contents: Contents{}, sum: sha256.New(), data: sha256.New()}
}

// Write takes the next bytes of the dump. It never fails: what is wrong is
// found out at the end.
func (s *scanner) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.partial = append(s.partial, p...)
			return n, nil
		}
		line := p[:i]
		if len(s.partial) > 0 {
			s.partial = append(s.partial, line...)
			line = s.partial
		}
		s.line(line)
		s.partial, p = s.partial[:0], p[i+1:]
	}
}

// check says what is wrong with the whole of it.
func (s *scanner) check() error {
	switch {
	case s.err != nil:
		return s.err
	case !s.complete || len(s.partial) > 0:
		return fmt.Errorf("the dump is cut off: its last line is not %q", trailer)
	case len(s.contents) == 0:
		return fmt.Errorf("the dump holds no schema")
	}
	return nil
}

const trailer = "-- Dump completed"

var (
	createSchema   = regexp.MustCompile("^CREATE DATABASE .*?`((?:[^`]|``)+)`")
	useSchema      = regexp.MustCompile("^USE `((?:[^`]|``)+)`;$")
	createTable    = regexp.MustCompile("^CREATE TABLE `((?:[^`]|``)+)` \\($")
	nextNumber     = regexp.MustCompile(" AUTO_INCREMENT=[0-9]+")
	insertRows     = regexp.MustCompile("^INSERT INTO `((?:[^`]|``)+)`(?: \\(.*\\))? VALUES$")
	createSequence = regexp.MustCompile("^CREATE SEQUENCE `((?:[^`]|``)+)`")
	setSequence    = regexp.MustCompile("^DO SETVAL\\(`((?:[^`]|``)+)`")
	viewName       = regexp.MustCompile("^/\\*!50001 VIEW `((?:[^`]|``)+)`")
	blockName      = regexp.MustCompile("(?is)\\b(TRIGGER|EVENT|FUNCTION|PROCEDURE|PACKAGE BODY|PACKAGE)\\s+(?:IF\\s+NOT\\s+EXISTS\\s+)?((?:`(?:[^`]|``)+`|[\\w$]+)(?:\\.(?:`(?:[^`]|``)+`|[\\w$]+))?)")
	binlogPosition = regexp.MustCompile(`^-- CHANGE MASTER TO MASTER_LOG_FILE='([^']+)', MASTER_LOG_POS=(\d+);$`)
	gtidPosition   = regexp.MustCompile(`^-- SET GLOBAL gtid_slave_pos='([^']*)';$`)
)

func (s *scanner) line(line []byte) {
	switch s.state {
	case rows:
		s.row(line)
		return
	case block:
		if string(line) == "DELIMITER ;" {
			s.endBlock()
			return
		}
		s.block.Write(line)
		s.block.WriteByte('\n')
		return
	case definition:
		if len(line) == 0 || bytes.HasPrefix(line, []byte("/*!40101 SET")) {
			s.table.Definition = s.digest()
			s.table.Data = hex.EncodeToString(s.data.Sum(nil))
			s.state = outside
			return
		}
		// The next number of an AUTO_INCREMENT is data: it changes with every row.
		if m := nextNumber.Find(line); m != nil && line[0] == ')' {
			s.data.Write(m)
			line = bytes.Replace(line, m, nil, 1)
		}
		s.sum.Write(append(line, '\n'))
		return
	case view:
		s.sum.Write(append(line, '\n'))
		if m := viewName.FindSubmatch(line); m != nil {
			s.object("view "+name(m[1]), s.digest())
			s.state = outside
		}
		return
	case outside:
	}
	s.statement(line)
}

// statement is a line at which something begins.
func (s *scanner) statement(line []byte) {
	if len(line) > 0 {
		s.complete = bytes.HasPrefix(line, []byte(trailer))
	}
	switch {
	case bytes.HasPrefix(line, []byte("--")):
		s.comment(line)
	case bytes.HasPrefix(line, []byte("CREATE DATABASE ")):
		if m := createSchema.FindSubmatch(line); m != nil {
			s.contents[name(m[1])] = &Schema{Tables: map[string]*Table{}, Objects: map[string]string{}}
		}
	case bytes.HasPrefix(line, []byte("USE ")):
		if m := useSchema.FindSubmatch(line); m != nil {
			s.schema = s.contents[name(m[1])]
		}
	case bytes.HasPrefix(line, []byte("CREATE TABLE ")):
		m := createTable.FindSubmatch(line)
		if m == nil || s.schema == nil {
			s.unknown(line)
			return
		}
		s.table = &Table{}
		s.data.Reset()
		s.schema.Tables[name(m[1])] = s.table
		s.state = definition
		s.sum.Write(append(line, '\n'))
	case bytes.HasPrefix(line, []byte("INSERT INTO ")):
		m := insertRows.FindSubmatch(line)
		if m == nil || s.schema == nil || s.table == nil || s.schema.Tables[name(m[1])] != s.table {
			s.unknown(line) // the rows of a table come right behind its definition
			return
		}
		s.state = rows
	case bytes.HasPrefix(line, []byte("CREATE SEQUENCE ")), bytes.HasPrefix(line, []byte("DO SETVAL(")):
		m := createSequence.FindSubmatch(line)
		if m == nil {
			m = setSequence.FindSubmatch(line)
		}
		if m == nil || s.schema == nil {
			s.unknown(line)
			return
		}
		s.sum.Write(append([]byte(s.schema.Objects["sequence "+name(m[1])]), line...))
		s.object("sequence "+name(m[1]), s.digest())
	case bytes.HasPrefix(line, []byte("DELIMITER ;;")):
		s.state = block
	case bytes.HasPrefix(line, []byte("/*!50001 CREATE ALGORITHM")):
		s.state = view
		s.sum.Write(append(line, '\n'))
	}
}

func (s *scanner) comment(line []byte) {
	if m := binlogPosition.FindSubmatch(line); m != nil {
		s.position = string(m[1]) + ":" + string(m[2])
	}
	if m := gtidPosition.FindSubmatch(line); m != nil {
		s.gtid = string(m[1])
	}
	if v, ok := bytes.CutPrefix(line, []byte("-- Server version\t")); ok {
		s.server = string(v)
	}
}

// row takes a row. Where an INSERT ends and the next begins depends on a
// buffer's size, so neither the comma nor the semicolon is hashed.
func (s *scanner) row(line []byte) {
	last := len(line) - 1
	if last < 1 || line[0] != '(' || line[last] != ',' && line[last] != ';' {
		s.unknown(line)
		s.state = outside
		return
	}
	s.table.Rows++
	s.data.Write(line[:last])
	if line[last] == ';' {
		s.table.Data = hex.EncodeToString(s.data.Sum(nil))
		s.state = outside
	}
}

func (s *scanner) endBlock() {
	text := s.block.String()
	s.block.Reset()
	s.state = outside
	// The definition comes behind a word CREATE; settings are before it.
	at := strings.Index(text, "CREATE")
	m := blockName.FindStringSubmatch(text[max(0, at):])
	if at < 0 || m == nil || s.schema == nil {
		s.unknown([]byte(text))
		return
	}
	s.sum.Write([]byte(text))
	s.object(strings.ToLower(m[1])+" "+strings.ReplaceAll(m[2], "`", ""), s.digest())
}

func (s *scanner) object(key, sum string) {
	if s.schema == nil {
		s.unknown([]byte(key))
		return
	}
	s.schema.Objects[key] = sum
}

func (s *scanner) unknown(line []byte) {
	if s.err == nil {
		s.err = fmt.Errorf("the dump has a form that is not known, near %.60q: was it written by mariadb-dump 10.11 or newer?", line)
	}
}

// digest returns the hash of what was written to sum since the last one.
func (s *scanner) digest() string {
	out := hex.EncodeToString(s.sum.Sum(nil))
	s.sum.Reset()
	return out
}

// name is an identifier without its quotes.
func name(quoted []byte) string { return strings.ReplaceAll(string(quoted), "``", "`") }
