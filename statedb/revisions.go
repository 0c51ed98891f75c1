package statedb

import (
	"context"
	"fmt"
	"iter"
)

// Each reads documents by id and calls do with each, in order, as many at a time as
// Get gives. i is the place of the document's id.
func Each(ctx context.Context, db DB, table string, ids []string, do func(i int, d Document) error) error {
	return EachBy(ids, func(left []string) ([]Document, error) { return db.Get(ctx, table, left) }, do)
}

// EachBy is Each with what reads as Get does.
func EachBy(ids []string, read func(left []string) ([]Document, error), do func(i int, d Document) error) error {
	for at := 0; at < len(ids); {
		documents, err := read(ids[at:])
		if err != nil {
			return err
		}
		for _, d := range documents {
			if err := do(at, d); err != nil {
				return err
			}
			at++
		}
	}
	return nil
}

// Revisions gives all that stands under a document's id: first what the database
// shows, then what Get brought with it, then what it left out, of which only a part is
// in memory at a time. read brings that: ReadRevisions, or what tries it again until it
// works; it is never called for a document of an adapter that is not Replicated. It
// gives nothing where there is no document, and ends with the first error.
func (d Document) Revisions(read func(revs []string) ([]Revision, error)) iter.Seq2[Revision, error] {
	return func(yield func(Revision, error) bool) {
		if d.Rev == "" || !yield(Revision{Rev: d.Rev, Body: d.Body}, nil) {
			return
		}
		var left []string
		for _, r := range d.Others {
			if r.Body == nil {
				left = append(left, r.Rev)
			} else if !yield(r, nil) {
				return
			}
		}
		for len(left) > 0 {
			part, err := read(left)
			if err == nil && (len(part) == 0 || len(part) > len(left)) {
				err = fmt.Errorf("%d of %d revisions of %.80q were read", len(part), len(left), d.ID)
			}
			if err != nil {
				yield(Revision{}, err)
				return
			}
			left = left[len(part):]
			for _, r := range part {
				if r.Body != nil && !yield(r, nil) {
					return
				}
			}
		}
	}
}

// ReadRevisions reads revisions of a document that Get left out, as Replicated does.
func ReadRevisions(ctx context.Context, db DB, table, id string, revs []string) ([]Revision, error) {
	r, ok := db.(Replicated)
	if !ok {
		return nil, fmt.Errorf("the adapter left revisions of %.80q out and cannot read them", id)
	}
	return r.ReadRevisions(ctx, table, id, revs)
}
