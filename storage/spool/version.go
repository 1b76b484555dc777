package spool

// version of the format. A test builds a program that has another one.
const version = 1
