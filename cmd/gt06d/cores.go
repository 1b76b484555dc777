package main

import "runtime"

// shareCores gives Go as many places for goroutines again as there are cores,
// unless GOMAXPROCS says how many, and returns the cores.
//
// Loops and the log's syncs come back from system calls all the time, and with
// one place a core they wait up to 10 ms for one behind the writer to the
// database, who computes. With more than that the kernel decides, and it
// prefers who has waited. Beside a flood of attackers the devices' 99th
// percentile is 5 ms instead of 16, and in the quiet 1.1 instead of 1.4.
func shareCores(env func(string) string) (cores int) {
	cores = runtime.GOMAXPROCS(0)
	if env("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * cores)
	}
	return cores
}
