package photo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gt06/protocol"
)

const imei = protocol.IMEI(0x490154203237518)

func TestPartsInAnyOrder(t *testing.T) {
	t.Parallel()
	for name, numbered := range map[string]bool{"by offset": false, "by number": true} {
		s := New(t.TempDir())
		photo := bytes.Repeat([]byte("0123456789"), 250)
		const part = 1000
		place := func(i int) uint32 {
			if numbered {
				return uint32(i)
			}
			return uint32(i * part)
		}
		if _, err := s.Add(imei, &protocol.Photo{ID: 7, Total: uint32(len(photo)), Numbered: numbered}, nil); err != nil {
			t.Fatal(err)
		}
		for k, i := range []int{1, 1, 2, 0, 0} { // twice is once
			data := photo[i*part : min(len(photo), (i+1)*part)]
			file, err := s.Add(imei, &protocol.Photo{ID: 7, Place: place(i), Numbered: numbered}, data)
			if err != nil || (file != "") != (k >= 3) {
				t.Fatalf("%s, part %d: %q, %v", name, i, file, err)
			}
			if file == "" {
				continue
			}
			got, err := os.ReadFile(filepath.Join(s.dir, file))
			if err != nil || !bytes.Equal(got, photo) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := New(t.TempDir())
	for _, p := range []protocol.Photo{{Total: most + 1}, {Place: most}, {Place: 1<<32 - 1}} {
		if _, err := s.Add(imei, &p, []byte{1}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for id := range uint32(unfinished) {
		if _, err := s.Add(imei, &protocol.Photo{ID: id}, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Add(imei, &protocol.Photo{ID: 99}, []byte{1}); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	// A day later there is room again.
	s.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if _, err := s.Add(imei, &protocol.Photo{ID: 99}, []byte{1}); err != nil {
		t.Error(err)
	}
}
