// Package archive writes a ledger into a backup file, reads such files, and
// makes a ledger of them again, on any database.
//
// # The file
//
//	couchledger-backup 1 full            or: couchledger-backup 1 since <identity>
//	frame frame … frame                  documents, by table and id
//	frame                                the manifest
//	trailer                              where the manifest is, SHA-256 of all before
//
// A frame is 16 bytes, four numbers of 32 bits, big endian: the length of what
// follows, its length when it is unpacked, how many documents it holds, and the
// CRC-32C of these three and of what follows. What follows is zstd. Unpacked it
// is lines of JSON, each an array of the table, the id and the document in
// canonical form. A frame is of one table, has some megabytes, and can be read
// without the others.
//
// The manifest is a JSON object: which ledger, how many documents of which
// table, and for each frame where it is and with which id it begins. The
// SHA-256 is the file's identity. A file that holds only what came since an
// earlier one names that one's identity.
//
// Nothing is written twice, so a backup can go to a pipe.
//
// # The cut
//
// A node may write while its ledger is read, and a table is read by id, in the
// order of hashes, so one reading is no snapshot. What makes a set of documents
// a ledger is that it is closed: with a vote it has the block, the voter's vote
// before it, and what the block's transactions spend, decided. Documents are
// only added, and after what they need. So whatever is there at one moment is
// closed.
//
// The votes are read first, then the blocks, then the votes again. What was
// there when the blocks had been read has all been found by then, and is closed.
// The second reading of the votes finds later ones, too. Those are taken in as
// far as what they need was found, and left to the next backup otherwise. As a
// vote that was there in time lacks nothing, nor do those that it needs, none of
// them is ever left out, and only what came during the readings is looked at.
//
// Blocks that nobody has voted on are in the cut when the first reading found
// them: what they need was voted on before. Nodes vote on them after a restore.
package archive
