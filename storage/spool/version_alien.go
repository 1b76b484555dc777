//go:build gt06_alien

package spool

// version of a program from elsewhere, for tests of an upgrade to it.
const version = 99
