// Package simulator runs whole federations in a test: three to seven members, whose
// honest ones are real nodes, with their pipelines and Pebble stores, on databases
// in memory.
//
// A schedule is made from a seed. Each runs in a bubble of testing/synctest, with a
// clock that stands still while anything can be done. Every call of a node to its
// database waits until the scheduler lets it through: when all nodes stand still, it
// draws what happens next. A call is answered, or fails before or after it had its
// effect; a feed brings changes late, in another order, or again; a client posts; a
// node loses its power, between two calls or between two writes to its own disk, and
// starts on what that held, at times without its chainstate or its journal; time
// passes, and clocks are wrong by up to an hour; a member that lies does one of the
// things that the protocol lets it write.
//
// After each step what the honest nodes say is compared with all they have said. When
// the faults have stopped, all that was accepted must be decided at every node. One
// thing is excused: a block that all honest members have voted on, not alike, and that
// silent members leave open.
//
//	go test ./node/simulator                                     2,000 schedules
//	SIM_SCHEDULES=1000000 go test -timeout 0 ./node/simulator    as many as wanted
//	SIM_SEED=42 go test -run TestSchedules/shared -v ./node/simulator    one, with its trace
//
// A seed that fails is replayed at once, and its trace printed.
package simulator
