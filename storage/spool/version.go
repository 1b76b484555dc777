//go:build !gt06_alien

package spool

// version of the format.
const version = 1
