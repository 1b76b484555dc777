package server

import (
	"errors"
	"testing"
)

func TestSelfTest(t *testing.T) {
	t.Parallel()
	if err := SelfTest(); err != nil {
		t.Errorf("this kernel: %v", err)
	}
	for name, lie := range map[string]func(*streams){
		"a byte more was taken":  func(s *streams) { s.consumed++ },
		"a byte less was taken":  func(s *streams) { s.consumed-- },
		"a byte more was sent":   func(s *streams) { s.written++ },
		"nothing was ever taken": func(s *streams) { s.consumed = 0 },
		"nothing was ever sent":  func(s *streams) { s.written = 0 },
	} {
		err := selfTest(func(fd int) (streams, error) {
			s, err := offsets(fd)
			lie(&s)
			return s, err
		})
		if !errors.Is(err, ErrCounters) {
			t.Errorf("%s: got %v, want ErrCounters", name, err)
		}
	}
	broken := errors.New("no such option")
	if err := selfTest(func(int) (streams, error) { return streams{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
