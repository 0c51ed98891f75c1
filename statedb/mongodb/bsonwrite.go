package mongodb

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
)

// The fields that a stored document has beside those of its body. A deletion
// leaves a document with nothing else, so that the feed tells of it.
const (
	fieldID      = "_id"
	fieldRev     = "_rev"
	fieldDeleted = "_deleted"
)

// encodeDocument makes the BSON document of an object under an id: the fields
// of the object as they are, with _id and _rev in front. It fails on what BSON
// cannot hold: integers beyond 64 bits, U+0000 in keys.
func encodeDocument(id, rev string, body canonical.Value) (bson.Raw, error) {
	dst := make([]byte, 4, 64+2*len(id))
	dst = appendText(appendKey(dst, bson.TypeString, fieldID), id)
	dst = appendText(appendKey(dst, bson.TypeString, fieldRev), rev)
	return appendMembers(dst, 0, body)
}

// encodeTombstone makes what stands in place of a deleted document.
func encodeTombstone(id, rev string) bson.Raw {
	dst := make([]byte, 4, 64+2*len(id))
	dst = appendText(appendKey(dst, bson.TypeString, fieldID), id)
	dst = appendText(appendKey(dst, bson.TypeString, fieldRev), rev)
	dst = append(appendKey(dst, bson.TypeBoolean, fieldDeleted), 1)
	return endDocument(dst, 0)
}

// appendMembers appends the members of an object or an array to the document
// that began at start, and ends it.
func appendMembers(dst []byte, start int, v canonical.Value) ([]byte, error) {
	array := v.Kind() == canonical.Array
	for i := range v.Len() {
		mark := len(dst)
		dst = append(dst, 0) // the type, when it is known
		if array {
			dst = strconv.AppendInt(dst, int64(i), 10)
		} else {
			key := v.Key(i)
			if strings.IndexByte(key, 0) >= 0 {
				return nil, fmt.Errorf("the key %q contains U+0000", key)
			}
			dst = append(dst, key...)
		}
		dst = append(dst, 0)
		var t bson.Type
		var err error
		if dst, t, err = appendValue(dst, v.At(i)); err != nil {
			return nil, err
		}
		dst[mark] = byte(t)
	}
	return endDocument(dst, start), nil
}

// appendValue appends a value without its type and key.
func appendValue(dst []byte, v canonical.Value) ([]byte, bson.Type, error) {
	switch v.Kind() {
	case canonical.Bool:
		if v.Bool() {
			return append(dst, 1), bson.TypeBoolean, nil
		}
		return append(dst, 0), bson.TypeBoolean, nil
	case canonical.Int:
		n, ok := v.Int64()
		if !ok {
			return nil, 0, fmt.Errorf("the integer %.40s does not fit 64 bits", v.Text())
		}
		if n >= math.MinInt32 && n <= math.MaxInt32 {
			return binary.LittleEndian.AppendUint32(dst, uint32(n)), bson.TypeInt32, nil
		}
		return binary.LittleEndian.AppendUint64(dst, uint64(n)), bson.TypeInt64, nil
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		if err != nil {
			return nil, 0, fmt.Errorf("the number %.40s is no double", v.Text())
		}
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), bson.TypeDouble, nil
	case canonical.String:
		return appendText(dst, v.Text()), bson.TypeString, nil
	case canonical.Array, canonical.Object:
		t := bson.TypeEmbeddedDocument
		if v.Kind() == canonical.Array {
			t = bson.TypeArray
		}
		start := len(dst)
		dst, err := appendMembers(append(dst, 0, 0, 0, 0), start, v)
		return dst, t, err
	default:
		return dst, bson.TypeNull, nil
	}
}

func appendKey(dst []byte, t bson.Type, key string) []byte {
	return append(append(append(dst, byte(t)), key...), 0)
}

func appendText(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)+1))
	return append(append(dst, s...), 0)
}

// endDocument ends the document that began at start with four bytes for its
// length.
func endDocument(dst []byte, start int) []byte {
	dst = append(dst, 0)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}
