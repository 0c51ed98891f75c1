// Package verify audits a ledger: it reads every block, vote and statement of
// a source, and the derived transactions where the source has them, checks all
// that can be checked, and reports what is wrong.
//
// It trusts nobody's index. It shares the pure core with the node, which says
// what a sound transaction is and how votes are counted, and none of the code
// that makes, votes on or follows blocks.
//
// # How it works
//
// Each document is checked by itself on all cores, and what it says of others
// is written as facts into a scratch store on disk, under keys that sort so
// that facts that belong together meet. Then the facts are evaluated by merging
// sorted ranges: votes with votes into each node's chain, blocks with their
// votes into decisions, outputs with what spends them. So memory is bounded
// whatever the ledger's size.
//
// Blocks have no sequence number, and none is needed: of the valid
// transactions each must spend outputs of valid transactions, each output may
// be spent once. Circles among transactions cannot be, as an id is the hash of
// a body with the ids it spends. That no block was voted valid before a block
// that it spends from is checked by each node's own chain of votes.
//
// # While a node runs
//
// Documents that come while a table is read may be missed, and what refers to
// them then seems to refer to nothing. So when the first evaluation finds
// anything, the tables are read once more for what came meanwhile, and the
// evaluation is made again: something is missing only if it is not there even
// now, and a document that the first reading found refers to it. Blocks and
// votes are written after what they refer to, so nothing in flight is reported.
//
// # Going on after an interruption
//
// Facts stand in one batch with the note that their document was checked, and
// with the hash of its body. A run that is resumed reads every document again
// and checks those that are not, to the byte, what was checked before; one that
// was changed or is gone since is reported. Reading costs little beside
// checking.
package verify
