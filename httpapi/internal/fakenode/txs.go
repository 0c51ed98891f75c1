package fakenode

import (
	"fmt"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// CreateTx gives the body of a CREATE with outputs outputs for owner. Its
// fulfillment is no signature. Different serials give different ids.
func CreateTx(owner string, serial, outputs int) []byte {
	asset := fmt.Sprintf(`{"data":{"serial":%d}}`, serial)
	return body("CREATE", asset, input(owner, "null"), owner, outputs)
}

// TransferTx gives the body of a TRANSFER that spends one output of an asset
// and makes one for owner.
func TransferTx(owner, asset string, spends ledger.OutputRef) []byte {
	link := fmt.Sprintf(`{"output":%d,"txid":%q}`, spends.Index, spends.TxID)
	return body("TRANSFER", fmt.Sprintf(`{"id":%q}`, asset), input(owner, link), owner, 1)
}

func input(owner, fulfills string) string {
	return fmt.Sprintf(`{"fulfillment":"cf:4:none","fulfills":%s,"owners_before":[%q]}`, fulfills, owner)
}

func body(operation, asset, input, owner string, outputs int) []byte {
	list := ""
	for i := range outputs {
		if i > 0 {
			list += ","
		}
		list += fmt.Sprintf(`{"amount":1,"condition":{"details":{},"uri":"cc:4:20:none:96"},"public_keys":[%q]}`, owner)
	}
	text := fmt.Sprintf(`{"asset":%s,"id":"%064d","inputs":[%s],"metadata":null,"operation":%q,"outputs":[%s],"version":%q}`,
		asset, 0, input, operation, list, ledger.Version)
	t, err := ledger.ParseTransaction([]byte(text))
	if err != nil {
		panic(err)
	}
	tree, err := canonical.Parse(t.Bytes())
	if err != nil {
		panic(err)
	}
	return tree.With("id", canonical.StringOf(t.ComputeID())).Bytes()
}
