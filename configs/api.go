package configs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

const (
	// maxRate is the highest rate of requests that can be set.
	maxRate = 1_000_000
	// maxHeaderBytes bounds server.limits.header_bytes.
	maxHeaderBytes = 1 << 20
	// everyOrigin stands for all web pages.
	everyOrigin = "*"
	// everyRight is a token's way to write all of Rights.
	everyRight = "all"
)

// listOf takes a list of texts, or one text with separators. one gives an
// entry in its normal form, and false for what is none.
func listOf(expects, separator string, one func(string) (string, bool)) kind[[]string] {
	return kind[[]string]{
		parse: func(v canonical.Value, _ origin) ([]string, error) {
			var list []string
			switch v.Kind() {
			case canonical.String:
				list = strings.Split(v.Text(), separator)
			case canonical.Array:
				for i := range v.Len() {
					if v.At(i).Kind() != canonical.String {
						return nil, expectation(expects)
					}
					list = append(list, v.At(i).Text())
				}
			default:
				return nil, expectation(expects)
			}
			var sound []string
			for _, text := range list {
				entry, ok := one(strings.TrimSpace(text))
				if !ok {
					return nil, expectation(expects)
				}
				if !slices.Contains(sound, entry) {
					sound = append(sound, entry)
				}
			}
			return sound, nil
		},
		print: canonical.StringsOf,
	}
}

var (
	originsKind = listOf("web origins such as https://app.example:8443, without a path, or *", ",", originOf)
	rightsKind  = listOf("a list of post and query", ":", func(text string) (string, bool) {
		text = strings.ToLower(text)
		return text, slices.Contains(Rights, text)
	})
)

// originOf gives an origin as browsers write it.
func originOf(text string) (string, bool) {
	if text == everyOrigin {
		return text, true
	}
	text = strings.ToLower(text)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isHost(u.Hostname()) || strings.Contains(text, everyOrigin) {
		return "", false
	}
	port := u.Port()
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	origin := u.Scheme + "://" + u.Host
	// Nothing else may stand there: a path, a user, a bare colon.
	return origin, strings.TrimSuffix(text, ":"+port) == strings.TrimSuffix(origin, ":"+port) && !strings.HasSuffix(text, ":")
}

// tokensKind takes objects, or name=rights=hash with colons between them. Its
// errors never show an entry: somebody may put a token where its hash belongs.
var tokensKind = kind[[]Token]{
	parse: func(v canonical.Value, _ origin) ([]Token, error) {
		const expects = `tokens as "bigchaindb token NAME" prints them: a name, the SHA-256 hash of the token in 64 hexadecimal digits, and what it may: post, query or all`
		var tokens []Token
		switch v.Kind() {
		case canonical.String:
			for part := range strings.SplitSeq(v.Text(), ":") {
				fields := strings.Split(part, "=")
				if len(fields) != 3 {
					return nil, expectation(fmt.Sprintf("%s; number %d is not name=rights=hash", expects, len(tokens)+1))
				}
				tokens = append(tokens, Token{Name: fields[0], Hash: fields[2], May: strings.Split(fields[1], "+")})
			}
		case canonical.Array:
			for i := range v.Len() {
				token, ok := tokenOf(v.At(i))
				if !ok {
					return nil, expectation(fmt.Sprintf(`%s; number %d is not an object of "name", "hash" and "may"`, expects, i+1))
				}
				tokens = append(tokens, token)
			}
		default:
			return nil, expectation(expects)
		}
		for i := range tokens {
			if fault := tokens[i].normalize(); fault != "" {
				return nil, expectation(fmt.Sprintf("%s; of number %d %s", expects, i+1, fault))
			}
			for _, other := range tokens[:i] {
				if other.Name == tokens[i].Name || other.Hash == tokens[i].Hash {
					return nil, expectation(fmt.Sprintf("%s; number %d has the name or the hash of one before", expects, i+1))
				}
			}
		}
		return tokens, nil
	},
	print: func(tokens []Token) canonical.Value {
		list := make([]canonical.Value, len(tokens))
		for i, t := range tokens {
			list[i] = t.Value()
		}
		return canonical.ArrayOf(list...)
	},
}

// Value is the token's entry as it stands in a config file.
func (t Token) Value() canonical.Value {
	return canonical.ObjectOf(
		canonical.Member{Key: "name", Value: canonical.StringOf(t.Name)},
		canonical.Member{Key: "hash", Value: canonical.StringOf(t.Hash)},
		canonical.Member{Key: "may", Value: canonical.StringsOf(t.May)},
	)
}

// Text is the token's entry as it stands in the environment.
func (t Token) Text() string { return t.Name + "=" + strings.Join(t.May, "+") + "=" + t.Hash }

// NewToken is the entry of a token with a hash. The error says what is wrong
// with the name or the rights.
func NewToken(name, hash string, may []string) (Token, error) {
	t := Token{Name: name, Hash: hash, May: slices.Clone(may)}
	if fault := t.normalize(); fault != "" {
		return Token{}, errors.New(fault)
	}
	return t, nil
}

func tokenOf(v canonical.Value) (t Token, ok bool) {
	if v.Kind() != canonical.Object {
		return t, false
	}
	for i := range v.Len() {
		value := v.At(i)
		switch key := v.Key(i); {
		case key == "name" && value.Kind() == canonical.String:
			t.Name = value.Text()
		case key == "hash" && value.Kind() == canonical.String:
			t.Hash = value.Text()
		case key == "may" && value.Kind() == canonical.String:
			t.May = []string{value.Text()}
		case key == "may" && value.Kind() == canonical.Array:
			for j := range value.Len() {
				t.May = append(t.May, value.At(j).Text()) // "" of what is no text is no right
			}
		default:
			return t, false
		}
	}
	return t, true
}

// normalize puts the parts into one form, and says which cannot be.
func (t *Token) normalize() (fault string) {
	const longest = 64
	if t.Name == "" || len(t.Name) > longest || strings.Trim(t.Name, tokenNames) != "" {
		return "the name is not 1 to 64 of the characters A-Z a-z 0-9 . _ -"
	}
	t.Hash = strings.ToLower(t.Hash)
	if raw, err := hex.DecodeString(t.Hash); err != nil || len(raw) != 32 {
		return "the hash is not 64 hexadecimal digits"
	}
	var may []string
	for _, right := range t.May {
		if right = strings.ToLower(right); right != everyRight && !slices.Contains(Rights, right) {
			return "the rights are not of post, query and all"
		}
	}
	for _, right := range Rights {
		if slices.ContainsFunc(t.May, func(given string) bool {
			return strings.EqualFold(given, right) || strings.EqualFold(given, everyRight)
		}) {
			may = append(may, right)
		}
	}
	if t.May = may; len(may) == 0 {
		return "the rights are missing: post, query or all"
	}
	return ""
}

const tokenNames = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// checkAPI sees that what is set for the API goes together.
func (l *loader) checkAPI() {
	s := &l.settings.Server
	if slices.Contains(s.CORSOrigins, everyOrigin) {
		s.CORSOrigins = []string{everyOrigin}
	}
	if s.Limits.Burst > 0 && s.Limits.RequestsPerSecond == 0 {
		l.warn("server.limits.burst is set and server.limits.requests_per_second is not: requests are not limited")
	}
	if s.Limits.HeaderTimeout > s.Limits.ReadTimeout && l.sources["server.limits.header_timeout"] != "" {
		l.warn("server.limits.header_timeout is longer than server.limits.read_timeout, which counts")
	}
	if len(s.Anonymous) > 0 && len(s.Tokens) == 0 {
		l.warn("server.anonymous is set and server.tokens is not: everybody may do everything")
	}
	host, _, err := net.SplitHostPort(s.Bind)
	ip := net.ParseIP(host)
	local := err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
	if len(s.Tokens) > 0 && s.TLS.CertFile == "" && !s.TrustForwarded && !local {
		l.warn("server.tokens are set, server.tls.certfile is not, and server.bind takes requests from other machines: tokens cross the network in clear")
	}
}
