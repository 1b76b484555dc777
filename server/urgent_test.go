package server

import "golang.org/x/sys/unix"

func sendUrgent(fd int, b []byte) error { return unix.Sendto(fd, b, unix.MSG_OOB, nil) }
