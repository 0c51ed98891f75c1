// Package e2e tests the bigchaindb command as its users meet it: the built
// binary, a folder of its own, HTTP and signals. It holds tests only.
//
// Three environment variables steer it: E2E_KILLS is how often each part of
// TestKill kills the node, E2E_SEED repeats a run's random choices, and
// E2E_KEEP=1 leaves the nodes' folders in place.
package e2e
