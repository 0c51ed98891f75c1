// Package ledger holds the objects of a 0.10 ledger: transactions, blocks and
// votes, their canonical bytes, ids and signatures, and the schema that says
// which JSON is one of them.
//
// It is pure. What makes an object valid among others (who owns an output,
// who may vote) is in package consensus.
package ledger
