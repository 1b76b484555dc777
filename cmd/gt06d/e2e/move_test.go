package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gt06/protocol"
	"gt06/protocol/device"
)

// dial connects to an address of the machine's own network, from a thread that
// goes there and comes back. A thread that ended instead would take the children
// with it that it has started (Pdeathsig): programs of other tests.
func (v *moving) dial(ctx context.Context, address string) (c net.Conn, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer here.Close() //nolint:errcheck // read only
	there, err := os.Open(v.network.Load().(string))
	if err != nil {
		return nil, err
	}
	defer there.Close() //nolint:errcheck // read only
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	defer func() {
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // other tests would be in that network
		}
	}()
	d := net.Dialer{Timeout: patience}
	return d.DialContext(ctx, "tcp4", address)
}

// tracker is a device as it is sold: it sends a place (0x12, to which a server
// may be silent) and a heartbeat, waits for the answer to that, and when its
// link breaks keeps what it has and connects anew.
type tracker struct {
	n        int
	dial     func(ctx context.Context, address string) (net.Conn, error)
	mu       sync.Mutex // guards all below
	fixes    []said
	links    int  // connections that were logged in to
	node     bool // by whom, the last one
	attempts int
}

// said is a place that was sent.
type said struct {
	device.Place
	node bool      // to the Node service
	kept time.Time // the heartbeat behind it was answered; zero: it was not
	last time.Time // the last answer on its connection: when Node was killed some are lost behind it
}

// count returns how often the device has logged in, and whether the last one was
// to the Node service.
func (t *tracker) count() (links int, node bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.links, t.node
}

func (t *tracker) run(ctx context.Context) {
	for ctx.Err() == nil {
		t.connection(ctx)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// connection is one link, until it breaks.
func (t *tracker) connection(ctx context.Context) {
	c, err := t.dial(ctx, "127.0.0.1:5023")
	if err != nil {
		return
	}
	defer c.Close() //nolint:errcheck // a test's own
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	var framer protocol.Framer
	buf := make([]byte, 0, 512)
	// answer waits for the answer to a kind and returns its serial.
	answer := func(kind device.Kind) (uint16, bool) {
		most := patience
		if kind == device.Login { // nobody may have accepted it: pm2's daemon holds the port of workers that end
			most = 5 * time.Second
		}
		_ = c.SetReadDeadline(time.Now().Add(most))
		for {
			for {
				cut := framer.Next(buf, true)
				if cut.Len == 0 {
					break
				}
				f := buf[cut.Skip : cut.Skip+cut.Len]
				typ, serial := f[3], uint16(f[len(f)-6])<<8|uint16(f[len(f)-5])
				buf = buf[cut.Skip+cut.Len:]
				if typ == kind.Type() {
					return serial, true
				}
			}
			part := make([]byte, 256)
			n, err := c.Read(part)
			buf = append(buf, part[:n]...)
			if err != nil || ctx.Err() != nil {
				return 0, false
			}
		}
	}
	const first = 1000 // of the serials: the npm parser answers with 1, whatever it was asked
	n := first + t.next()
	if _, err := c.Write(device.Build(device.Login, t.n, n, time.Now()).Bytes); err != nil {
		return
	}
	serial, ok := answer(device.Login)
	if !ok {
		return
	}
	node := serial == 1
	t.mu.Lock()
	t.links++
	t.node = node
	begin := len(t.fixes)
	t.mu.Unlock()
	for ctx.Err() == nil {
		n := first + t.next()
		f := device.Build(device.LocationOld, t.n, n, time.Now())
		t.mu.Lock()
		t.fixes = append(t.fixes, said{Place: f.Place, node: node})
		t.mu.Unlock()
		beat := device.Build(device.Heartbeat, t.n, n, time.Now())
		if _, err := c.Write(f.Bytes); err != nil {
			return
		}
		if _, err := c.Write(beat.Bytes); err != nil {
			return
		}
		if _, ok := answer(device.Heartbeat); !ok {
			return
		}
		now := time.Now()
		t.mu.Lock()
		t.fixes[len(t.fixes)-1].kept = now
		for i := begin; i < len(t.fixes); i++ {
			t.fixes[i].last = now
		}
		t.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (t *tracker) next() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	return t.attempts
}

// moving is the machine of a user: MariaDB with the CRM's schema, a CRM that
// reads, the Node service under pm2 of a user with nvm, and gt06 installed.
type moving struct {
	*machine
	network atomic.Value // path of its network namespace
	devices []*tracker
	asked   atomic.Int64 // pages of the CRM that were read
	http    http.Client
}

const movers = 10

func newMoving(t *testing.T) *moving {
	t.Helper()
	for _, path := range []string{"../../../.cache/pm2/node_modules/pm2", "../../../.cache/node/node_modules/mysql2", "/usr/share/php/Illuminate/autoload.php", "/usr/bin/node"} {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("under CI pm2, the Node service's modules and Laravel must be there: %v", err)
			}
			t.Skipf("%v (make test installs it)", err)
		}
	}
	v := &moving{machine: newMachine(t)}
	v.bare()
	v.deb("1.0", "")
	script := fmt.Sprintf(`set -e
cd ../../..
chroot %[1]s id ubuntu >/dev/null 2>&1 || chroot %[1]s useradd -m -s /bin/bash ubuntu
home=%[1]s/home/ubuntu; nvm=$home/.nvm/versions/node/v20.20.2
mkdir -p $nvm/bin $nvm/lib $home/gt06-server %[1]s/srv/crm/bootstrap/cache %[1]s/etc/gt06
cp -r .cache/pm2/node_modules $nvm/lib/
ln -s /usr/bin/node $nvm/bin/node
ln -s ../lib/node_modules/pm2/bin/pm2 $nvm/bin/pm2
cp cmd/gt06d/e2e/testdata/node/index.js $home/gt06-server/
cp -r .cache/node/node_modules $home/gt06-server/
chroot %[1]s chown -R ubuntu: /home/ubuntu
cp cmd/gt06d/e2e/testdata/crm/index.php %[1]s/srv/crm/
cp -r ops/deploy/laravel %[1]s/srv/crm/
cp ops/deploy/node/mapping.yaml %[1]s/etc/gt06/
cp ops/deploy/node/schema.sql %[1]s/root/
cat > %[1]s/etc/systemd/system/crm.service <<'END'
[Service]
ExecStart=/usr/bin/php -S 127.0.0.1:8080 /srv/crm/index.php
Environment=APP_TIMEZONE=Asia/Kolkata CRM_DIR=/srv/crm CRM_LARAVEL=/srv/crm/laravel CRM_DATABASE=crm GT06_DB_DATABASE=gt06 GT06_DB_SOCKET=/run/mysqld/mysqld.sock DB_USERNAME=laravel DB_PASSWORD=
Restart=always
[Install]
WantedBy=multi-user.target
END
`, v.root)
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v.boots()
	v.run("mkdir /var/lib/mysql && chown mysql: /var/lib/mysql && TMPDIR=/var/lib/mysql mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=socket")
	v.run("systemctl enable --now mariadb crm || { journalctl --no-pager -n 40 -u mariadb; false; }")
	v.run(`mariadb -e "CREATE DATABASE crm; CREATE USER laravel@localhost; GRANT SELECT ON crm.* TO laravel@localhost; CREATE USER node@localhost IDENTIFIED BY 'hush-hush'; GRANT ALL ON crm.* TO node@localhost" && mariadb crm < /root/schema.sql`)
	v.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return v.dial(ctx, addr) }, DisableKeepAlives: true}
	for n := range movers {
		v.devices = append(v.devices, &tracker{n: n, dial: v.dial})
	}
	return v
}

// boots starts it, again after a power cut.
func (v *moving) boots() {
	v.t.Helper()
	v.start()
	v.network.Store(fmt.Sprintf("/proc/%s/ns/net", v.leader))
}

// pm2 runs pm2 as its user does, from a login shell that knows nvm.
func (v *moving) pm2(args string) string {
	v.t.Helper()
	return v.run("cd /home/ubuntu/gt06-server && runuser -u ubuntu -- env -i HOME=/home/ubuntu PATH=/home/ubuntu/.nvm/versions/node/v20.20.2/bin:/usr/bin:/bin DB_PASSWORD=hush-hush sh -c 'pm2 " + args + "'")
}

// takeover applies it as an operator with the hash of the plan that was read.
func (v *moving) takeover(flags string) {
	v.t.Helper()
	out, _ := v.try("gt06ctl takeover --json --watch 3s " + flags)
	var p struct{ Plan, Text string }
	at := strings.Index(out, "{")
	if at < 0 || json.NewDecoder(strings.NewReader(out[at:])).Decode(&p) != nil || p.Plan == "" {
		v.t.Fatalf("no plan: %s", out)
	}
	began := time.Now()
	out = v.run("gt06ctl takeover --watch 3s --apply --yes --plan=" + p.Plan + " " + flags + " || { journalctl --no-pager -n 20 -u gt06d; false; }")
	v.t.Logf("takeover %s in %s\n%s", flags, time.Since(began).Round(time.Millisecond), out)
	if strings.Contains(out, "hush-hush") {
		v.t.Error("a secret is shown")
	}
}

// logins are how often each device has logged in.
func (v *moving) logins() (list []int) {
	for _, d := range v.devices {
		n, _ := d.count()
		list = append(list, n)
	}
	return list
}

// served waits until every device is served by the Node service, or by gt06d,
// and has sent something there.
func (v *moving) served(node bool) {
	v.t.Helper()
	begin := time.Now()
	if !v.eventually(patience, func() bool {
		for _, d := range v.devices {
			d.mu.Lock()
			ok := d.node == node && len(d.fixes) > 0 && d.fixes[len(d.fixes)-1].node == node && d.fixes[len(d.fixes)-1].last.After(begin)
			d.mu.Unlock()
			if !ok {
				return false
			}
		}
		return true
	}) {
		out, _ := v.try("ss -ltnp; gt06ctl ops port; cat /home/ubuntu/.pm2/logs/*; journalctl --no-pager -n 20 -u gt06d")
		v.t.Fatalf("the devices are not served by the Node service %v: %v\n%s", node, v.logins(), out)
	}
}

// once compares logins before and after a switch: one more for each device; most
// where a program has several workers, which end one after the other.
func (v *moving) once(before []int, most int) {
	v.t.Helper()
	for i, n := range v.logins() {
		if more := n - before[i]; more < 1 || more > most {
			v.t.Errorf(broken+"device %d logged in %d times at a switch", i, more)
		}
	}
}

// ask is a user of the CRM, all the time: every page is answered, and what it
// counts never gets less.
func (v *moving) ask(ctx context.Context, done chan<- error) {
	counts := map[string]int{}
	for i := 0; ctx.Err() == nil; i++ {
		imei := device.IMEI(i % movers).String()
		var page struct{ Count int }
		err := v.page(ctx, "/vehicles/"+imei, &page)
		if ctx.Err() != nil {
			break
		}
		if err == nil && page.Count < counts[imei] {
			err = fmt.Errorf("%s had %d rows and has %d", imei, counts[imei], page.Count)
		}
		if err != nil {
			done <- err
			return
		}
		counts[imei] = page.Count
		v.asked.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	done <- nil
}

func (v *moving) page(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080"+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", path, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// whileAsked does something while a user works with the CRM.
func (v *moving) whileAsked(do func()) {
	v.t.Helper()
	if !v.eventually(patience, func() bool { return v.page(context.Background(), "/vehicles/1", &struct{}{}) == nil }) {
		v.t.Fatal(v.run("systemctl status crm"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go v.ask(ctx, done)
	do()
	cancel()
	if err := <-done; err != nil {
		v.t.Errorf(broken+"the CRM: %v", err)
	}
}

// TestFromNodeAndBack is the way a user goes: a Node service under a pm2 of
// another user (nvm, real parser, real mysql2) with devices and a CRM that reads
// its table; takeover, and back, three times: with another program in pm2's list,
// as the last one in it, in cluster mode; a power cut between. Each device
// connects anew once a switch. In the CRM's table each fix that was answered is
// one row, by whomever: only what Node itself had answered and not stored when it
// was killed may be missing. The CRM is answered all the time.
func TestFromNodeAndBack(t *testing.T) {
	t.Parallel()
	v := newMoving(t)
	step := func(name string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { v.t = t; do(t) })
		v.t = t
		if t.Failed() {
			t.FailNow()
		}
	}
	step("the Node service", func(*testing.T) {
		v.pm2(`start index.js --name gt06-gps-service -- 5023 && echo "setInterval(() => {}, 1000)" > queue.js && pm2 start queue.js --name crm-queue && pm2 save`)
		v.run("env PATH=/home/ubuntu/.nvm/versions/node/v20.20.2/bin:$PATH pm2 startup systemd -u ubuntu --hp /home/ubuntu && systemctl is-enabled pm2-ubuntu")
	})
	step("install", func(t *testing.T) {
		out := v.run("cd /root && DEBIAN_FRONTEND=noninteractive apt-get install -y ./gt06_1.0_amd64.deb 2>&1")
		if !strings.Contains(out, "gt06ctl takeover") {
			t.Errorf("the package does not say what is next:\n%s", out)
		}
		v.run(`sed -i -e 's/^# *store: mariadb/store: mariadb/' -e 's|^#* *dsn:.*|dsn: gt06@unix(/run/mysqld/mysqld.sock)/gt06|' /etc/gt06/gt06.yaml
printf 'sinks:\n  - name: crm\n    table: {mapping: /etc/gt06/mapping.yaml}\n' >> /etc/gt06/gt06.yaml
gt06ctl store init --apply --reader laravel
mariadb -e "GRANT SELECT, INSERT, UPDATE ON crm.gps_positions TO gt06@localhost"`)
	})
	ctx, end := context.WithCancel(context.Background())
	var driving sync.WaitGroup
	for _, d := range v.devices {
		driving.Go(func() { d.run(ctx) })
	}
	defer func() { end(); driving.Wait() }()
	v.served(true)
	round := func(most int) {
		v.whileAsked(func() {
			before := v.logins()
			v.takeover("")
			v.served(false)
			v.once(before, most)
			if saved := v.run("cat /home/ubuntu/.pm2/dump.pm2"); strings.Contains(saved, "gt06-gps-service") {
				v.t.Error("the next boot would start the Node service")
			}
		})
	}
	back := func() {
		v.whileAsked(func() {
			before := v.logins()
			v.takeover("--back")
			v.served(true)
			v.once(before, 1)
			if out, _ := v.try("systemctl is-enabled gt06d"); out != "disabled\n" {
				v.t.Errorf("gt06d at the next boot: %s", out)
			}
		})
	}
	step("beside another program", func(t *testing.T) {
		round(1)
		if out := v.pm2("jlist"); !strings.Contains(out, `"crm-queue"`) {
			t.Errorf("the other program: %s", out)
		}
		back()
	})
	step("as the last one, and a power cut", func(t *testing.T) {
		v.pm2("delete crm-queue && pm2 save")
		round(1)
		v.off()
		v.boots()
		v.served(false)
		if out := v.run("systemctl is-active pm2-ubuntu; gt06ctl ops port"); !strings.Contains(out, "gt06d") {
			t.Errorf("after a reboot: %s", out)
		}
		back()
	})
	step("in cluster mode", func(*testing.T) {
		v.pm2("delete gt06-gps-service && pm2 start index.js --name gt06-gps-service -i 2 -- 5023 && pm2 save")
		v.served(true)
		round(2)
		back()
		if out := v.pm2("jlist"); strings.Count(out, `"exec_mode":"cluster_mode"`) != 2 {
			v.t.Errorf("it is not as it was: %s", out)
		}
	})
	step("the ledger", func(*testing.T) {
		end()
		driving.Wait()
		v.compare()
	})
}

// compare looks for each fix in the CRM's table and in gt06's.
func (v *moving) compare() {
	v.t.Helper()
	db, err := sql.Open("mysql", "root@unix(/proc/"+v.leader+"/root/run/mysqld/mysqld.sock)/?parseTime=true")
	if err != nil {
		v.t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	type key struct {
		imei     string
		at       int64
		lat, lon int64
	}
	micro := func(f float64) int64 { return int64(math.Round(f * 1e6)) }
	rows := func(query string, zone time.Duration) map[key]int {
		found := map[key]int{}
		r, err := db.QueryContext(v.t.Context(), query)
		if err != nil {
			v.t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // read to its end
		for r.Next() {
			var imei string
			var at time.Time
			var lat, lon float64
			if err := r.Scan(&imei, &at, &lat, &lon); err != nil {
				v.t.Fatal(err)
			}
			found[key{imei, at.Add(-zone).Unix(), micro(lat), micro(lon)}]++
		}
		if err := r.Err(); err != nil {
			v.t.Fatal(err)
		}
		return found
	}
	const india = 5*time.Hour + 30*time.Minute
	crm := rows("SELECT imei, fix_time, latitude, longitude FROM crm.gps_positions", india)
	own := rows("SELECT imei, fix_time, latitude, longitude FROM gt06.positions JOIN gt06.devices ON devices.id = device_id", 0)
	// near finds a place whose last digit was rounded the other way.
	near := func(found map[key]int, k key) (n int) {
		for _, a := range []int64{0, -1, 1} {
			for _, b := range []int64{0, -1, 1} {
				at := key{k.imei, k.at, k.lat + a, k.lon + b}
				n += found[at]
				delete(found, at)
			}
		}
		return n
	}
	// What a Node service that is killed has answered and not stored.
	const underWay = 10 * time.Second
	var nodes, ours, lost, open int
	for _, d := range v.devices {
		imei := device.IMEI(d.n).String()
		for _, f := range d.fixes {
			k := key{imei, f.Time.Unix(), micro(f.Latitude), micro(f.Longitude)}
			n, stored := near(crm, k), near(own, k)
			switch {
			case n > 1 || stored > 1:
				v.t.Errorf(broken+"%+v: %d rows of the CRM, %d of gt06", f, n, stored)
			case f.kept.IsZero(): // nobody said that it has it
				open++
			case f.node:
				nodes++
				if n == 0 && f.last.Sub(f.kept) < underWay {
					lost++
				} else if n == 0 {
					v.t.Errorf("%+v was Node's, and is no row", f)
				}
				if stored != 0 {
					v.t.Errorf("%+v was Node's, and is a row of gt06", f)
				}
			default:
				ours++
				if n != 1 || stored != 1 {
					v.t.Errorf(broken+"%+v was gt06's: %d rows of the CRM, %d of gt06", f, n, stored)
				}
			}
		}
	}
	if len(crm)+len(own) > 0 {
		v.t.Errorf("rows that nobody sent: %v, %v", crm, own)
	}
	if nodes == 0 || ours == 0 || v.asked.Load() == 0 {
		v.t.Error("the test shows nothing")
	}
	v.t.Logf("%d fixes were answered by Node (%d of them it lost), %d by gt06; %d by nobody; %d pages of the CRM; logins %v", nodes, lost, ours, open, v.asked.Load(), v.logins())
}
