package mongodb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// errMalformed is an answer that is not the BSON it should be.
var errMalformed = errors.New("mongodb: malformed answer")

func malformed(what string) error {
	return fmt.Errorf("%w: %w: %s", statedb.ErrUnavailable, errMalformed, what)
}

// foreignRev is the revision of a document that has none of its own: one that
// others wrote, without a text as _rev.
const foreignRev = "0-0"

// record is a document as it is stored.
type record struct {
	id, rev string
	deleted bool
	body    canonical.Value // an object without what begins with an underscore
}

// document is the record as the contract has it.
func (r record) document() statedb.Document {
	return statedb.Document{ID: r.id, Rev: r.rev, Body: r.body.Bytes()}
}

// readRecord reads a document. ok is false for those that are none of the
// ledger's: their _id is no text, or one that no document may have.
func readRecord(raw bson.Raw) (r record, ok bool, err error) {
	r.rev = foreignRev
	var members []canonical.Member
	err = eachElement(raw, func(t bson.Type, key, value []byte) error {
		if len(key) == 0 || key[0] != '_' {
			v, err := readValue(t, value, 1)
			members = append(members, canonical.Member{Key: string(key), Value: v})
			return err
		}
		switch string(key) {
		case fieldID:
			if ok = t == bson.TypeString; ok {
				r.id = textOf(value)
				ok = statedb.CheckID(r.id) == nil
			}
		case fieldRev:
			if t == bson.TypeString && len(value) > len(`....0`) {
				r.rev = canonical.StringOf(textOf(value)).Text()
			}
		case fieldDeleted:
			r.deleted = t == bson.TypeBoolean && value[0] == 1
		}
		return nil
	})
	if err != nil {
		return record{}, false, err
	}
	r.body = canonical.ObjectOf(members...)
	return r, ok, nil
}

// textOf is the text of a string's value.
func textOf(value []byte) string { return string(value[4 : len(value)-1]) }

// maxReadDepth is how deep documents are read. No server takes one that deep.
const maxReadDepth = canonical.MaxDepth

// readValue reads a value. What JSON does not have comes as MongoDB's extended
// JSON, {"$oid": …} for instance: only others can have written that.
func readValue(t bson.Type, value []byte, depth int) (canonical.Value, error) {
	if depth > maxReadDepth {
		return canonical.Value{}, malformed("a document is nested too deep")
	}
	switch t {
	case bson.TypeNull:
		return canonical.Value{}, nil
	case bson.TypeBoolean:
		return canonical.BoolOf(value[0] == 1), nil
	case bson.TypeInt32:
		return canonical.IntOf(int64(int32(binary.LittleEndian.Uint32(value)))), nil
	case bson.TypeInt64:
		return canonical.IntOf(int64(binary.LittleEndian.Uint64(value))), nil
	case bson.TypeDouble:
		f := math.Float64frombits(binary.LittleEndian.Uint64(value))
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			return canonical.FloatOf(f), nil
		}
	case bson.TypeString:
		return canonical.StringOf(textOf(value)), nil
	case bson.TypeArray:
		var items []canonical.Value
		err := eachElement(value, func(t bson.Type, _, value []byte) error {
			v, err := readValue(t, value, depth+1)
			items = append(items, v)
			return err
		})
		return canonical.ArrayOf(items...), err
	case bson.TypeEmbeddedDocument:
		var members []canonical.Member
		err := eachElement(value, func(t bson.Type, key, value []byte) error {
			v, err := readValue(t, value, depth+1)
			members = append(members, canonical.Member{Key: string(key), Value: v})
			return err
		})
		return canonical.ObjectOf(members...), err
	}
	text := bsoncore.Value{Type: bsoncore.Type(t), Data: value}.String()
	if v, err := canonical.Parse([]byte(text)); err == nil {
		return v, nil
	}
	return canonical.StringOf(text), nil
}

// eachElement calls do with the elements of a document or an array. What it is
// given as value is as long as its type wants.
func eachElement(document []byte, do func(t bson.Type, key, value []byte) error) error {
	if len(document) < 5 || int64(binary.LittleEndian.Uint32(document)) != int64(len(document)) || document[len(document)-1] != 0 {
		return malformed("the length of a document is wrong")
	}
	rest := document[4 : len(document)-1]
	for len(rest) > 0 {
		t := bson.Type(rest[0])
		end := 1
		for end < len(rest) && rest[end] != 0 {
			end++
		}
		if end == len(rest) {
			return malformed("a key does not end")
		}
		key := rest[1:end]
		value, after, ok := cutValue(t, rest[end+1:])
		if !ok {
			return malformed(fmt.Sprintf("the value of type %d under %.100q is cut off", t, key))
		}
		if err := do(t, key, value); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

// cutValue takes the value of a type from the front of data.
func cutValue(t bson.Type, data []byte) (value, rest []byte, ok bool) {
	size := 0
	switch t {
	case bson.TypeNull:
	case bson.TypeBoolean:
		size = 1
	case bson.TypeInt32:
		size = 4
	case bson.TypeDouble, bson.TypeInt64:
		size = 8
	case bson.TypeString:
		if len(data) < 5 {
			return nil, nil, false
		}
		n := int64(int32(binary.LittleEndian.Uint32(data)))
		if n < 1 || n > int64(len(data)-4) || data[4+n-1] != 0 {
			return nil, nil, false
		}
		size = 4 + int(n)
	case bson.TypeArray, bson.TypeEmbeddedDocument:
		if len(data) < 5 {
			return nil, nil, false
		}
		n := int64(int32(binary.LittleEndian.Uint32(data)))
		if n < 5 || n > int64(len(data)) {
			return nil, nil, false
		}
		size = int(n)
	default:
		v, after, ok := bsoncore.ReadValue(data, bsoncore.Type(t))
		if !ok || v.Validate() != nil {
			return nil, nil, false
		}
		return v.Data, after, true
	}
	if size > len(data) {
		return nil, nil, false
	}
	return data[:size], data[size:], true
}
