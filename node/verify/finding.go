package verify

// Rule names what a finding's document breaks.
type Rule string

// The rules.
const (
	Changed            Rule = "changed"
	Foreign            Rule = "foreign"
	GenesisMissing     Rule = "genesis-missing"
	GenesisClaim       Rule = "genesis-claim"
	BlockMissing       Rule = "block-missing"
	BlockShape         Rule = "block-shape"
	BlockID            Rule = "block-id"
	BlockHash          Rule = "block-hash"
	BlockSignature     Rule = "block-signature"
	BlockTimestamp     Rule = "block-timestamp"
	BlockMaker         Rule = "block-maker"
	BlockVoters        Rule = "block-voters"
	BlockGenesis       Rule = "block-genesis"
	TransactionTwice   Rule = "transaction-twice"
	TransactionHash    Rule = "transaction-hash"
	Condition          Rule = "condition"
	Fulfillment        Rule = "fulfillment"
	InputTwice         Rule = "input-twice"
	InputMissing       Rule = "input-missing"
	InputNotValid      Rule = "input-not-valid"
	InputSameBlock     Rule = "input-same-block"
	InputCondition     Rule = "input-condition"
	InputOwners        Rule = "input-owners"
	InputAsset         Rule = "input-asset"
	Amounts            Rule = "amounts"
	DoubleSpend        Rule = "double-spend"
	ValidTwice         Rule = "valid-twice"
	VoteShape          Rule = "vote-shape"
	VoteID             Rule = "vote-id"
	VoteSignature      Rule = "vote-signature"
	VoteVoter          Rule = "vote-voter"
	VoteGenesis        Rule = "vote-genesis"
	VoteVerdict        Rule = "vote-verdict"
	VoteChain          Rule = "vote-chain"
	VoteOrder          Rule = "vote-order"
	VoteTwice          Rule = "vote-twice"
	BlockDisputed      Rule = "block-disputed"
	StatementShape     Rule = "statement-shape"
	StatementSignature Rule = "statement-signature"
	StatementHistory   Rule = "statement-history"
	DerivedMissing     Rule = "derived-missing"
	DerivedChanged     Rule = "derived-changed"
	DerivedBlock       Rule = "derived-block"
	DerivedExtra       Rule = "derived-extra"
)

// Settled reports whether a finding of the rule proves that a member lied, and
// the federation has dealt with it: the ledger is sound by what it holds.
func (r Rule) Settled() bool { return r == VoteTwice || r == BlockDisputed }

// Rules lists all rules with what they ask for.
var Rules = []struct {
	Rule Rule
	Text string
}{
	{Changed, "a document is not changed or removed while it is verified"},
	{Foreign, "a table holds the ledger's documents and no others"},
	{GenesisMissing, "the document `genesis` claims the first block"},
	{GenesisClaim, "the claimed first block is a sound block of one GENESIS transaction"},
	{BlockMissing, "a block that is claimed or voted on is there"},
	{BlockShape, "a block, and each transaction in it, has the documented fields and values"},
	{BlockID, "a block stands under its own id"},
	{BlockHash, "a block's id is the hash of its body"},
	{BlockSignature, "a block is signed by its maker"},
	{BlockTimestamp, "a block is not older than the genesis block"},
	{BlockMaker, "a block's maker was a member of the federation when it was made"},
	{BlockVoters, "a block's voters are the members of the federation when it was made"},
	{BlockGenesis, "a GENESIS transaction stands alone in the claimed first block, and nowhere else"},
	{TransactionTwice, "a transaction is in a block once"},
	{TransactionHash, "a transaction's id is the hash of its body"},
	{Condition, "an output's condition.details make its condition.uri"},
	{Fulfillment, "every input is fulfilled, every signature verifies"},
	{InputTwice, "a transaction spends an output once"},
	{InputMissing, "a valid transaction spends outputs that exist"},
	{InputNotValid, "a valid transaction spends outputs of valid transactions"},
	{InputSameBlock, "a valid transaction spends outputs of blocks decided before its own"},
	{InputCondition, "a fulfillment is of the spent output's condition"},
	{InputOwners, "owners_before are the spent output's public_keys"},
	{InputAsset, "inputs are of the asset that asset.id names"},
	{Amounts, "a TRANSFER's inputs and outputs add up to the same amount"},
	{DoubleSpend, "an output is spent by one valid transaction at most"},
	{ValidTwice, "a transaction is in one valid block at most"},
	{VoteShape, "a vote has the documented fields and values"},
	{VoteID, "a vote stands under the id of its block and voter"},
	{VoteSignature, "a vote is signed by its voter"},
	{VoteVoter, "a voter was a member of the federation when the block was made"},
	{VoteGenesis, "the genesis block is not voted on"},
	{VoteVerdict, "a vote's verdict and reason are what an honest member could say of the block"},
	{VoteChain, "a node's votes form one chain by previous_block, from the genesis block on"},
	{VoteOrder, "a node votes on a block before it votes for one that spends from it"},
	{VoteTwice, "a member votes one way on a block"},
	{BlockDisputed, "the votes on a block decide it in one way, whichever of a liar's votes are counted"},
	{StatementShape, "a statement about the federation has its fields and values, under its own id"},
	{StatementSignature, "a statement is signed by its member"},
	{StatementHistory, "a statement is a member's and follows from the federation's history"},
	{DerivedMissing, "each valid transaction has its document in the table for queries"},
	{DerivedChanged, "that document is what stands in the block"},
	{DerivedBlock, "its block_id names the valid block"},
	{DerivedExtra, "there are no others in that table"},
}

// Finding is one thing that is wrong.
type Finding struct {
	Table string `json:"table"`
	ID    string `json:"id"` // of the document
	Rule  Rule   `json:"rule"`
	// Transaction is the id of the transaction in the block that it is about,
	// if it is about one.
	Transaction string `json:"transaction,omitempty"`
	Seen        string `json:"seen"`
}
