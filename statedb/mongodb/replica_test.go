package mongodb

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

func setOf(version int32, members ...member) bson.D {
	var list bson.A
	for _, m := range members {
		list = append(list, bson.D{{Key: "_id", Value: int32(m.id)}, {Key: "host", Value: m.host}, {Key: "priority", Value: 2.0}})
	}
	return bson.D{
		{Key: "_id", Value: "rs"}, {Key: "version", Value: version}, {Key: "term", Value: int32(3)}, {Key: "members", Value: list},
		{Key: "settings", Value: bson.D{{Key: "replicaSetId", Value: bson.ObjectID{1}}}},
	}
}

func TestAddMember(t *testing.T) {
	old := setOf(4, member{5, "a:27017"}, member{0, "b:27017"})
	before := setOf(4, member{5, "a:27017"}, member{0, "b:27017"})
	got, needed, err := addMember(old, "c:1")
	if err != nil || !needed {
		t.Fatalf("%v, %v", needed, err)
	}
	want := setOf(4, member{5, "a:27017"}, member{0, "b:27017"})
	want[1].Value = int64(5)
	want[3].Value = append(want[3].Value.(bson.A), bson.D{{Key: "_id", Value: int32(6)}, {Key: "host", Value: "c:1"}})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if !reflect.DeepEqual(old, before) {
		t.Errorf("the old configuration was changed to %v", old)
	}
	if _, needed, err := addMember(old, "b:27017"); needed || err != nil {
		t.Errorf("adding a member again: %v, %v", needed, err)
	}
}

func TestRemoveMember(t *testing.T) {
	old := setOf(4, member{0, "a:27017"}, member{5, "b:27017"})
	got, needed, err := removeMember(old, "a:27017")
	if err != nil || !needed {
		t.Fatalf("%v, %v", needed, err)
	}
	want := setOf(4, member{5, "b:27017"})
	want[1].Value = int64(5)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if _, needed, err := removeMember(old, "c:1"); needed || err != nil {
		t.Errorf("removing what is no member: %v, %v", needed, err)
	}
	if _, _, err := removeMember(setOf(1, member{0, "a:1"}), "a:1"); err == nil || !strings.Contains(err.Error(), "only member") {
		t.Errorf("removing the only member: %v", err)
	}
}

func TestPrimaryStays(t *testing.T) {
	if err := sparesPrimary("a:27017", []string{"b", "c:27017"}); err != nil {
		t.Error(err)
	}
	if err := sparesPrimary("a:27017", []string{"b", "a"}); err == nil || !strings.Contains(err.Error(), "primary") {
		t.Errorf("removing the primary: %v", err)
	}
}

func TestMalformedConfig(t *testing.T) {
	for _, config := range []bson.D{
		{}, {{Key: "members", Value: "x"}}, {{Key: "members", Value: bson.A{1}}}, {{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: "a"}}}}},
		{{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 1}, {Key: "host", Value: "a:1"}}, bson.D{{Key: "_id", Value: 2}, {Key: "host", Value: "b:1"}}}}},
	} {
		for _, change := range []func(bson.D, string) (bson.D, bool, error){addMember, removeMember} {
			host := "b:1"
			if _, _, err := change(config, host); err == nil {
				if _, _, err = change(config, "c:1"); err == nil {
					t.Errorf("%v was taken", config)
				}
			}
		}
	}
}

func TestWithPort(t *testing.T) {
	for host, want := range map[string]string{"a": "a:27017", "a:1": "a:1", "10.0.0.1": "10.0.0.1:27017", "[::1]:5": "[::1]:5", "::1": "[::1]:27017"} {
		if got := withPort(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// A server of its own has no members to add, and says so.
func TestMembersOfNoSet(t *testing.T) {
	db := open(t, optionsFor(mongotest.Shared(t)))
	defer db.Close()
	if db.server.set != "" {
		t.Skip("not tested: the server is in a replica set")
	}
	if members, err := db.Members(t.Context()); err != nil || len(members) != 0 {
		t.Errorf("Members: %v, %v", members, err)
	}
	for what, err := range map[string]error{
		"AddMembers": db.AddMembers(t.Context(), []string{"a"}), "RemoveMembers": db.RemoveMembers(t.Context(), []string{"a"}),
	} {
		var final *refusal
		if !errors.As(err, &final) || !strings.Contains(err.Error(), "not in a replica set") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
