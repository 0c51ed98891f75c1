package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/couchledger/couchledger/canonical"
)

// maxFileBytes bounds a config file; a keyring of a thousand nodes takes 50 kB.
const maxFileBytes = 1 << 20

// maxDepth bounds how deep the sections of a config file stand in each other.
const maxDepth = 20

// format tells how a file is written, by its name's extension.
type format int

const (
	formatJSON format = iota
	formatYAML
	formatTOML
)

func formatOf(path string) format {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml":
		return formatYAML
	case ".toml":
		return formatTOML
	}
	return formatJSON
}

// readFile reads a config file into one object. The error is fs.ErrNotExist
// when there is no such file. open tells that others than its owner may read it.
func readFile(path string) (tree canonical.Value, open bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		var pathError *fs.PathError
		if !errors.Is(err, fs.ErrNotExist) && errors.As(err, &pathError) {
			err = fmt.Errorf("config file %s cannot be read: %w", path, pathError.Err)
		}
		return tree, false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("it is a folder")
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	}
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("it is longer than %d bytes", maxFileBytes)
	}
	if err != nil {
		return tree, false, fmt.Errorf("config file %s cannot be read: %w", path, err)
	}
	tree, err = decode(data, formatOf(path))
	if err != nil {
		return tree, false, fmt.Errorf("config file %s: %w", path, err)
	}
	return tree, info.Mode().Perm()&0o044 != 0, nil
}

// decode reads a file's text into one object. Duplicate keys are refused in
// all formats.
func decode(data []byte, f format) (canonical.Value, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var tree canonical.Value
	var err error
	switch f {
	case formatYAML:
		tree, err = decodeYAML(data)
	case formatTOML:
		tree, err = decodeTOML(data)
	default:
		tree, err = decodeJSON(data)
	}
	if err != nil {
		return tree, err
	}
	if tree.Kind() != canonical.Object {
		return tree, fmt.Errorf("expected an object with the sections of the settings, got %s", tree.Kind())
	}
	return tree, nil
}

func decodeJSON(data []byte) (canonical.Value, error) {
	tree, err := canonical.ParseWithin(data, canonical.Limits{Depth: maxDepth})
	var fault *canonical.SyntaxError
	if errors.As(err, &fault) {
		before := data[:min(fault.Offset, len(data))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return tree, fmt.Errorf("invalid JSON in line %d, column %d: %s", line, column, fault.Reason)
	}
	return tree, err
}

// decodeYAML goes through the parsed nodes itself: decoding them into a map
// takes quadratic memory when keys repeat, and aliases multiply what a small
// file holds.
func decodeYAML(data []byte) (canonical.Value, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF): // only comments: nothing is set
		return canonical.ObjectOf(), nil
	case err != nil:
		return canonical.Value{}, fmt.Errorf("invalid YAML: %s", oneSentence(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return canonical.Value{}, errors.New("invalid YAML: expected one document")
	}
	tree, err := valueOfNode(document.Content[0], nil)
	if err == nil && tree.IsNull() {
		return canonical.ObjectOf(), nil
	}
	return tree, err
}

// valueOfNode turns a YAML node into the form of JSON.
func valueOfNode(node *yaml.Node, path []string) (canonical.Value, error) {
	fault := func(format string, args ...any) (canonical.Value, error) {
		return canonical.Value{}, fmt.Errorf("invalid YAML in line %d: %s", node.Line, fmt.Sprintf(format, args...))
	}
	if len(path) > maxDepth {
		return fault("more than %d sections stand in each other", maxDepth)
	}
	switch node.Kind {
	case yaml.SequenceNode:
		items := make([]canonical.Value, len(node.Content))
		for i, item := range node.Content {
			var err error
			if items[i], err = valueOfNode(item, append(path, strconv.Itoa(i))); err != nil {
				return canonical.Value{}, err
			}
		}
		return canonical.ArrayOf(items...), nil
	case yaml.MappingNode:
		members := make([]canonical.Member, 0, len(node.Content)/2)
		seen := make(map[string]bool, len(node.Content)/2)
		content := node.Content
		for i := 0; i < len(content); i += 2 {
			key := content[i]
			node = key // whose line a fault tells
			switch {
			case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
				return fault("expected the name of a setting, which %s is not", quoted(key.Value))
			case seen[key.Value]:
				return fault("%s is there already", quoted(strings.Join(append(path, key.Value), ".")))
			}
			seen[key.Value] = true
			value, err := valueOfNode(content[i+1], append(path, key.Value))
			if err != nil {
				return canonical.Value{}, err
			}
			members = append(members, canonical.Member{Key: key.Value, Value: value})
		}
		return canonical.ObjectOf(members...), nil
	case yaml.ScalarNode:
		var scalar any
		if err := node.Decode(&scalar); err != nil {
			return fault("%s", oneSentence(err))
		}
		return valueOf(scalar, path)
	}
	return fault("aliases are not taken: write the value itself")
}

func decodeTOML(data []byte) (canonical.Value, error) {
	document := map[string]any{}
	if err := toml.Unmarshal(data, &document); err != nil {
		var fault *toml.DecodeError
		if errors.As(err, &fault) {
			line, column := fault.Position()
			return canonical.Value{}, fmt.Errorf("invalid TOML in line %d, column %d: %s", line, column, oneSentence(err))
		}
		return canonical.Value{}, fmt.Errorf("invalid TOML: %s", oneSentence(err))
	}
	return valueOf(document, nil)
}

// oneSentence takes a library's message without its name and its line breaks.
func oneSentence(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "toml: ")
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "unmarshal errors:", "")), " ")
}

// valueOf turns what TOML, and one scalar of YAML, decodes to into the form of JSON.
func valueOf(decoded any, path []string) (canonical.Value, error) {
	if len(path) > maxDepth {
		return canonical.Value{}, fmt.Errorf("more than %d sections stand in each other", maxDepth)
	}
	switch v := decoded.(type) {
	case nil:
		return canonical.Value{}, nil
	case bool:
		return canonical.BoolOf(v), nil
	case string:
		return canonical.StringOf(v), nil
	case int: // YAML's
		return canonical.IntOf(int64(v)), nil
	case int64: // TOML's
		return canonical.IntOf(v), nil
	case uint64: // YAML's, beyond int64: too large for any setting
		return canonical.FloatOf(float64(v)), nil
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return canonical.FloatOf(v), nil
		}
	case []any:
		items := make([]canonical.Value, len(v))
		for i, item := range v {
			var err error
			if items[i], err = valueOf(item, append(path, strconv.Itoa(i))); err != nil {
				return canonical.Value{}, err
			}
		}
		return canonical.ArrayOf(items...), nil
	case map[string]any:
		members := make([]canonical.Member, 0, len(v))
		for key, item := range v {
			value, err := valueOf(item, append(path, key))
			if err != nil {
				return canonical.Value{}, err
			}
			members = append(members, canonical.Member{Key: key, Value: value})
		}
		return canonical.ObjectOf(members...), nil
	}
	return canonical.Value{}, fmt.Errorf("%s: expected text, a number, true or false, a list or a section, got %s (write it as a text, in quotes)",
		strings.Join(path, "."), quoted(fmt.Sprint(decoded)))
}
