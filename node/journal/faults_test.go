package journal

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func listFaults(t *testing.T, j *Journal, limit int) (all []Fault) {
	t.Helper()
	for cursor := ""; ; {
		list, next, err := j.Faults(cursor, limit)
		if err != nil || len(list) > limit {
			t.Fatalf("Faults: got %d, %v", len(list), err)
		}
		all = append(all, list...)
		if cursor = next; cursor == "" {
			return all
		}
	}
}

// TestFaults: each is kept once, across restarts, in order; garbage of one kind
// does not bury another kind.
func TestFaults(t *testing.T) {
	fs := vfs.NewMem()
	open := func() *Journal {
		j, err := Open("journal", "owner", fs)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	record := func(f Fault, want bool) {
		t.Helper()
		fresh, room, err := j.RecordFault(f)
		if fresh != want || err != nil || room < 0 {
			t.Fatalf("%s %s: got %v, room for %d, %v; want %v", f.Kind, f.Document, fresh, room, err, want)
		}
	}
	for i := range MaxFaults + 3 {
		record(Fault{Kind: "garbage", Document: fmt.Sprint(i)}, i < MaxFaults)
	}
	lie := Fault{Kind: "lie", Node: "liar", Document: "vote", Seen: 7, Evidence: []string{"one", strings.Repeat("x", 2*maxEvidence)}}
	record(lie, true)
	record(lie, false)
	lie.Node = "another"
	record(lie, true)
	for range 2 {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open()
		record(lie, false)
		record(Fault{Kind: "garbage", Document: "late"}, false)
		for _, limit := range []int{1, 7, 1000} {
			all := listFaults(t, j, limit)
			if len(all) != MaxFaults+2 || all[0].Document != "0" || all[MaxFaults].Node != "liar" || all[MaxFaults+1].Node != "another" {
				t.Fatalf("by %d: got %d faults", limit, len(all))
			}
			if got := all[MaxFaults]; got.Seen != 7 || got.Evidence[0] != "one" || !strings.HasSuffix(got.Evidence[1], fmt.Sprintf("x… (%d bytes)", 2*maxEvidence)) {
				t.Errorf("got %.200v", got)
			}
		}
	}
	for _, cursor := range []string{"x", "AAAA", "!!!"} {
		if _, _, err := j.Faults(cursor, 5); !errors.Is(err, ErrBadCursor) {
			t.Errorf("cursor %q: got %v", cursor, err)
		}
	}
	gone, err := j.WithdrawFaults("lie", func(f Fault) bool { return f.Node == "liar" })
	if err != nil || len(gone) != 1 || gone[0].Document != "vote" {
		t.Fatalf("WithdrawFaults: got %v, %v", gone, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open()
	if all := listFaults(t, j, 1000); len(all) != MaxFaults+1 || all[MaxFaults].Node != "another" {
		t.Errorf("with one taken back there are %d", len(all))
	}
	lie.Node = "liar"
	record(lie, true)
	record(lie, false)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
