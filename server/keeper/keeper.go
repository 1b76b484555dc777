package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a keeper.
type Options struct {
	Path  string        // of the socket
	Grace time.Duration // without a server before everything is closed [10 s]
	// Supervise starts the server again after any end that it did not
	// announce, and ends with the last server. Under systemd that is systemd's.
	Supervise bool
	Log       func(format string, args ...any)
	Ready     func() // the socket listens
	Beat      func() // called several times a second while the keeper lives
}

// held is one descriptor and what belongs to it.
type held struct {
	fd    int
	blob  []byte
	stale bool // not registered again since the last renew
}

// client is one conversation.
type client struct {
	*wire
	snapshot   []uint64 // ids still to be sent
	fetching   bool     // the snapshot is not complete
	subscribed bool
	fetched    bool // it resumes: the grace is longer
	renewing   bool
	left       bool // it ends on purpose
	unacked    int
	out        []change
	armed      bool // EPOLLOUT is on
	dead       bool
}

// change is one event for a subscriber. The descriptor is looked up when it is
// sent: an id that was dropped meanwhile is passed over.
type change struct {
	typ     byte
	id      uint64
	payload []byte
}

type request struct {
	from *client
	typ  byte
}

// Keeper is the state of the process. It belongs to one goroutine.
type Keeper struct {
	opt      Options
	ep       int
	listener int
	held     map[uint64]*held
	clients  map[int]*client
	requests []request
	serving  *client
	alone    time.Time // since when nobody serves; zero: somebody does
	mark     uint64
	child    supervisor
}

// maxBehind is how many changes a subscriber may be behind.
const maxBehind = 100_000

// Run keeps until the context ends, or, when it supervises, until it was
// released or its last server left.
func Run(ctx context.Context, opt Options) error {
	if opt.Grace == 0 {
		opt.Grace = 10 * time.Second
	}
	k := &Keeper{opt: opt, held: map[uint64]*held{}, clients: map[int]*client{}, ep: -1, listener: -1}
	if opt.Supervise {
		k.alone = time.Now() // who spawned us may have died since
	}
	lock, err := single(opt.Path)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // the process ends
	if err := k.listen(); err != nil {
		return err
	}
	wakeR, wakeW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wakeW.Close() //nolint:errcheck // the process ends
	if err := k.watch(int(wakeR.Fd()), unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _, _ = wakeW.Write([]byte{1}) })
	defer stop()
	k.child.wake = func() { _, _ = wakeW.Write([]byte{1}) }
	if opt.Ready != nil {
		opt.Ready()
	}
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(k.ep, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			switch fd := int(events[i].Fd); fd {
			case k.listener:
				k.accept()
			case int(wakeR.Fd()):
				var b [64]byte
				_, _ = wakeR.Read(b[:])
			default:
				k.talk(fd, events[i].Events)
			}
		}
		k.serve()
		k.bury()
		if opt.Beat != nil {
			opt.Beat()
		}
		if ctx.Err() != nil {
			// Who serves has its own descriptors and registers with the next
			// keeper; without a server nobody needs what is here.
			if k.serving == nil {
				k.release()
			}
			return os.Remove(opt.Path)
		}
		if k.supervise() {
			return os.Remove(opt.Path)
		}
	}
}

// single makes sure that one keeper listens on a path.
func single(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s", ErrRunning, path)
	}
	return f, nil
}

// ErrRunning is returned by Run when another keeper has the socket.
var ErrRunning = errors.New("gt06/keeper: another keeper is running")

func (k *Keeper) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	temporary := fmt.Sprintf("%s.%d", k.opt.Path, os.Getpid())
	_ = os.Remove(temporary)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: temporary}); err != nil {
		return fmt.Errorf("bind %s: %w", temporary, err)
	}
	if err := errors.Join(os.Chmod(temporary, 0o600), unix.Listen(fd, 16), os.Rename(temporary, k.opt.Path)); err != nil {
		return err
	}
	if k.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	k.listener = fd
	return k.watch(fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

func (k *Keeper) watch(fd, op int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(k.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (k *Keeper) accept() {
	for {
		fd, _, err := unix.Accept4(k.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() || k.watch(fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN) != nil {
			_ = unix.Close(fd)
			continue
		}
		k.clients[fd] = &client{wire: newWire(fd)}
	}
}

func (k *Keeper) talk(fd int, events uint32) {
	c := k.clients[fd]
	if c == nil {
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		k.drain(c)
	}
	if events&unix.EPOLLOUT != 0 {
		k.flush(c)
	}
}

// drain takes all messages a client has sent.
func (k *Keeper) drain(c *client) {
	for !c.dead {
		p, err := c.receive()
		switch {
		case err == nil:
			k.take(c, &p)
		case errors.Is(err, unix.EAGAIN):
			return
		default:
			if !errors.Is(err, errEnd) {
				k.opt.Log("a client is cut: %v", err)
			}
			c.dead = true
		}
	}
}

func (k *Keeper) take(c *client, p *packet) {
	if p.typ == msgRegister && len(p.fds) == 1 && len(p.payload) <= MaxBlob {
		k.register(c, p)
		return
	}
	p.close()
	h := k.held[p.id]
	switch p.typ {
	case msgUpdate:
		if h != nil && len(p.payload) <= MaxBlob {
			h.blob = append(h.blob[:0], p.payload...)
			k.tell(c, change{msgUpdate, p.id, h.blob})
		}
	case msgDrop:
		if h != nil {
			k.forget(c, p.id)
		}
	case msgRenew:
		c.renewing = true
		for _, h := range k.held {
			h.stale = true
		}
	case msgMark:
		k.mark = p.id
	case msgServing:
		k.serves(c)
	case msgCommand:
		k.child.command(p.payload)
	case msgLeave:
		c.left = true
	case msgRelease:
		k.opt.Log("released: %d descriptors", len(k.held))
		c.left = true
		k.release()
	case msgAck:
		c.unacked--
		k.flush(c)
	case msgFetch, msgSync:
		k.requests = append(k.requests, request{c, p.typ})
	}
}

func (k *Keeper) register(c *client, p *packet) {
	if old := k.held[p.id]; old != nil {
		_ = unix.Close(old.fd)
	}
	k.held[p.id] = &held{fd: p.fds[0], blob: append([]byte(nil), p.payload...)}
	k.tell(c, change{typ: msgRegister, id: p.id})
}

// serves makes c the client whose end counts.
func (k *Keeper) serves(c *client) {
	c.subscribed, c.snapshot, c.fetching, c.fetched, c.out = false, nil, false, false, nil
	if c.renewing {
		c.renewing = false
		for id, h := range k.held {
			if h.stale {
				k.forget(c, id)
			}
		}
	}
	k.serving, k.alone = c, time.Time{}
	k.child.serves()
}

func (k *Keeper) forget(c *client, id uint64) {
	_ = unix.Close(k.held[id].fd)
	delete(k.held, id)
	k.tell(c, change{typ: msgDrop, id: id})
}

// release closes everything, once: what is registered later is the next
// server's. The listener is shut down too, for others may hold duplicates.
func (k *Keeper) release() {
	k.alone = time.Time{}
	for id, h := range k.held {
		_ = unix.Shutdown(h.fd, unix.SHUT_RDWR)
		_ = unix.Close(h.fd)
		delete(k.held, id)
	}
}

// tell passes a change on to those who follow.
func (k *Keeper) tell(from *client, ch change) {
	for _, c := range k.clients {
		if c == from || !c.subscribed || c.dead {
			continue
		}
		ch.payload = append([]byte(nil), ch.payload...)
		if c.out = append(c.out, ch); len(c.out) > maxBehind {
			k.opt.Log("a client that does not read is cut")
			c.dead = true
			continue
		}
		k.flush(c)
	}
}

// serve answers requests: nobody before everybody was heard.
func (k *Keeper) serve() {
	if len(k.requests) == 0 {
		return
	}
	for _, c := range k.clients {
		k.drain(c)
	}
	list := k.requests
	k.requests = nil
	for _, r := range list {
		if r.typ == msgFetch {
			r.from.subscribed, r.from.fetching, r.from.fetched = true, true, true
			r.from.snapshot = r.from.snapshot[:0]
			for id := range k.held {
				r.from.snapshot = append(r.from.snapshot, id)
			}
		} else {
			r.from.out = append(r.from.out, change{typ: msgSynced, id: uint64(len(k.held)), payload: le.AppendUint64(nil, k.mark)})
		}
		k.flush(r.from)
	}
}

// flush sends the snapshot, then the changes, as far as the socket takes them.
func (k *Keeper) flush(c *client) {
	blocked := k.flushSnapshot(c)
	for !blocked && !c.fetching && !c.dead && len(c.out) > 0 {
		ch := c.out[0]
		b := message(ch.typ, ch.id)
		var fds []int
		if ch.typ == msgRegister {
			h := k.held[ch.id]
			if h == nil {
				c.out = c.out[1:]
				continue
			}
			ch.payload, fds = h.blob, []int{h.fd}
		}
		if blocked = !k.deliver(c, append(b, ch.payload...), fds); !blocked {
			c.out = c.out[1:]
		}
	}
	if c.dead || blocked == c.armed {
		return
	}
	c.armed = blocked
	events := uint32(unix.EPOLLIN)
	if blocked {
		events |= unix.EPOLLOUT
	}
	if err := k.watch(c.fd, unix.EPOLL_CTL_MOD, events); err != nil {
		c.dead = true
	}
}

func (k *Keeper) flushSnapshot(c *client) (blocked bool) {
	for c.fetching && !c.dead && c.unacked < window {
		var b []byte
		var fds []int
		taken := 0
		for ; taken < len(c.snapshot) && len(fds) < perMessage; taken++ {
			id := c.snapshot[taken]
			h := k.held[id]
			if h == nil {
				continue
			}
			b = le.AppendUint16(le.AppendUint64(b, id), uint16(len(h.blob)))
			b = append(b, h.blob...)
			fds = append(fds, h.fd)
		}
		if len(fds) == 0 {
			end := le.AppendUint64(message(msgEnd, uint64(len(k.held))), k.mark)
			if !k.deliver(c, end, nil) {
				return true
			}
			c.fetching, c.snapshot = false, nil
			return false
		}
		if !k.deliver(c, append(message(msgBatch, uint64(len(fds))), b...), fds) {
			return true
		}
		c.unacked++
		c.snapshot = c.snapshot[taken:]
	}
	return false
}

// deliver reports whether the message left.
func (k *Keeper) deliver(c *client, b []byte, fds []int) bool {
	err := send(c.fd, b, fds...)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		c.dead = true
	}
	return err == nil
}

// bury forgets dead clients and ends the grace.
func (k *Keeper) bury() {
	resuming := false
	for fd, c := range k.clients {
		if !c.dead {
			resuming = resuming || c.fetched
			continue
		}
		delete(k.clients, fd)
		_ = unix.Close(fd)
		if k.serving == c {
			k.serving, k.alone = nil, time.Now()
			k.child.ended(c.left)
		}
	}
	grace := k.opt.Grace
	if resuming {
		grace *= 3
	}
	if !k.alone.IsZero() && time.Since(k.alone) > grace {
		k.opt.Log("no server for %v: %d descriptors are closed", grace, len(k.held))
		k.release()
		k.child.gaveUp = true
	}
}
