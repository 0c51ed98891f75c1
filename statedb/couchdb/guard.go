package couchdb

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/statedb"
)

// Other operators' users have one of two roles in a ledger's databases: a reader
// reads, and the copier, as which this server itself copies from peers, adds.
func (db *DB) readerRole() string { return "couchledger-" + db.opts.Name + "-reader" }
func (db *DB) copierRole() string { return "couchledger-" + db.opts.Name + "-copier" }

const (
	usersDatabase = "_users"
	userPrefix    = "org.couchdb.user:"
	guardID       = "_design/couchledger_guard"
)

// guardFunction judges every write. The replicator calls it with the revision that
// a new one follows, null for what stands beside others: a peer may contradict what
// is here, and not replace it.
const guardFunction = `function (doc, old, user) {
  if (user.roles.indexOf("_admin") >= 0) return;
  if (user.roles.indexOf(%s) < 0) throw({forbidden: "only the ledger's node writes here"});
  if (old || doc._deleted) throw({forbidden: "what is here stays as it is"});
  if (!new RegExp(%s).test(doc._id)) throw({forbidden: "this id is no ledger's"});
  if (%d && JSON.stringify(doc).length > %[3]d) throw({forbidden: "it is too large for its table"});
}`

// guard has a table's database refuse all but new documents, and those from
// others than its node and the copier.
func (db *DB) guard(ctx context.Context, t statedb.CopiedTable) error {
	name, err := db.database(t.Table)
	if err != nil || !t.Guarded {
		return err
	}
	role, _ := json.Marshal(db.copierRole())
	ids, _ := json.Marshal(t.IDs)
	return db.upsert(ctx, path(name)+"/"+guardID, map[string]any{
		"language": "javascript", "validate_doc_update": fmt.Sprintf(guardFunction, role, ids, t.MaxBytes),
	})
}

// admit lets those with a role read a table's database, and write what no guard
// refuses.
func (db *DB) admit(ctx context.Context, table, role string) error {
	name, err := db.database(table)
	if err != nil {
		return err
	}
	return db.admin(ctx, func(ctx context.Context) error {
		security, err := db.client.DB(name).Security(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(security.Members.Roles, role) {
			return nil
		}
		if len(security.Members.Names)+len(security.Members.Roles) == 0 {
			// It was everybody's. Whoever else should read it must be named now.
			security.Members.Roles = []string{serverAdmin}
			if db.opts.Login != "" {
				security.Members.Names = []string{db.opts.Login}
			}
		}
		security.Members.Roles = append(security.Members.Roles, role)
		return db.client.DB(name).SetSecurity(ctx, security)
	})
}

// open lets those with a role into tables: first what holds them off is set up,
// and they are let in only if that worked.
func (db *DB) open(ctx context.Context, tables []statedb.CopiedTable, role string) error {
	for _, t := range tables {
		if err := db.guard(ctx, t); err != nil {
			return fmt.Errorf("guard the table %s: %w", t.Table, err)
		}
		if err := db.admit(ctx, t.Table, role); err != nil {
			return fmt.Errorf("let others into the table %s: %w", t.Table, err)
		}
	}
	return nil
}

// user is a document of _users.
type user struct {
	Rev      string   `json:"_rev,omitempty"`
	Name     string   `json:"name"`
	Password string   `json:"password,omitempty"`
	Roles    []string `json:"roles"`
	Type     string   `json:"type"`
}

func userPath(name string) string { return path(usersDatabase, userPrefix+name) }

// errOthersUser: the name is taken by a user that is none of this ledger's.
var errOthersUser = errors.New("CouchDB has a user of this name that is not this ledger's")

// putUser makes a user with one role and a new password.
func (db *DB) putUser(ctx context.Context, name, role string) (password string, err error) {
	if err := db.ensureSystem(ctx, usersDatabase); err != nil {
		return "", err
	}
	there, err := db.userOf(ctx, name, role)
	if err != nil {
		return "", err
	}
	password = rand.Text()
	body, err := json.Marshal(user{Rev: there, Name: name, Password: password, Roles: []string{role}, Type: "user"})
	if err != nil {
		return "", err
	}
	_, err = db.do(ctx, request{method: http.MethodPut, path: userPath(name), body: body})
	return password, err
}

// userOf returns the revision of a user with a role, "" where there is none.
func (db *DB) userOf(ctx context.Context, name, role string) (rev string, err error) {
	body, err := db.do(ctx, request{method: http.MethodGet, path: userPath(name), reads: true})
	if isMissingDocument(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var there user
	if err := json.Unmarshal(body, &there); err != nil {
		return "", malformed(usersDatabase)
	}
	if !slices.Equal(there.Roles, []string{role}) {
		return "", fmt.Errorf("%w: %q", errOthersUser, name)
	}
	return there.Rev, nil
}

func (db *DB) dropUser(ctx context.Context, name, role string) (there bool, err error) {
	rev, err := db.userOf(ctx, name, role)
	if err != nil || rev == "" {
		return false, err
	}
	return true, db.delete(ctx, userPath(name), rev)
}

// AllowReader lets another operator's server read.
func (db *DB) AllowReader(ctx context.Context, name string, tables []statedb.CopiedTable) (password string, err error) {
	if err := db.canReplicate(); err != nil {
		return "", err
	}
	if err := db.open(ctx, tables, db.readerRole()); err != nil {
		return "", err
	}
	return db.putUser(ctx, name, db.readerRole())
}

// ForbidReader ends that.
func (db *DB) ForbidReader(ctx context.Context, name string) (there bool, err error) {
	if err := db.canReplicate(); err != nil {
		return false, err
	}
	return db.dropUser(ctx, name, db.readerRole())
}

// canReplicate refuses what speaks CouchDB's protocol and knows no users.
func (db *DB) canReplicate() error {
	if db.server.substitute {
		return fmt.Errorf("the server at %s is not CouchDB: it has neither users nor replication", db.url)
	}
	return nil
}

// ensureSystem makes one of CouchDB's own databases where nobody has set up the
// server.
func (db *DB) ensureSystem(ctx context.Context, name string) error {
	_, err := db.do(ctx, request{method: http.MethodPut, path: path(name)})
	if statusOf(err) == http.StatusPreconditionFailed {
		return nil
	}
	return err
}

// upsert writes a document at a path, over what is there, unless it is the same.
func (db *DB) upsert(ctx context.Context, path string, fields map[string]any) error {
	for {
		body, err := db.do(ctx, request{method: http.MethodGet, path: path, reads: true})
		there := map[string]any{}
		switch {
		case err == nil:
			if err := json.Unmarshal(body, &there); err != nil {
				return malformed(path)
			}
		case !isMissingDocument(err):
			return err
		}
		same := err == nil
		for key, value := range fields {
			same = same && reflect.DeepEqual(there[key], value)
		}
		if same {
			return nil
		}
		delete(fields, "_rev")
		if rev, ok := there["_rev"]; ok {
			fields["_rev"] = rev
		}
		if body, err = json.Marshal(fields); err != nil {
			return err
		}
		if _, err = db.do(ctx, request{method: http.MethodPut, path: path, body: body}); statusOf(err) != http.StatusConflict {
			return err
		}
	}
}

func (db *DB) delete(ctx context.Context, path, rev string) error {
	_, err := db.do(ctx, request{method: http.MethodDelete, path: path, query: map[string][]string{"rev": {rev}}})
	if isMissingDocument(err) {
		return nil
	}
	return err
}

// withoutSecrets takes passwords out of a text of CouchDB's.
func withoutSecrets(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}
