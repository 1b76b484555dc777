// Package cloud is the one package that knows AWS: instances, volumes,
// snapshots, addresses, and what protects them, in the words of the runbooks.
//
// Three rules hold for every call that changes something. It can be repeated:
// the object is looked for by the tags of its change and step before it is
// made, because CreateSnapshot has no idempotency token and RunInstances' is
// not always honoured. It is retried by the SDK only where a second call does
// no harm. And success is never "the call returned" but a state read
// afterwards, which is the caller's to do (see [Cloud.Await]).
//
// There is no way here to delete a snapshot, deregister an image, release or
// disassociate an address, unlock a snapshot or change the Recycle Bin: what
// cannot be called cannot go wrong at night. Volumes are deleted and instances
// terminated only where their tag says rescue or temp.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/backup"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/rbin"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Options say which account and region, and as whom.
type Options struct {
	Region string
	// Profile is a profile of ~/.aws/config (SSO or a role to assume); "" is
	// the environment's or the instance's role.
	Profile string
	// Endpoint takes the place of all of AWS; only a loopback address is
	// accepted, so that no configuration can send a change elsewhere.
	Endpoint string
}

// Cloud is one account and region. It is safe for use from several goroutines.
type Cloud struct {
	region string
	poll   time.Duration
	clock  clock
	whoami atomic.Pointer[Identity]

	ec2    *ec2.Client
	s3     *s3.Client
	sts    *sts.Client
	rbin   *rbin.Client
	backup *backup.Client
	trail  *cloudtrail.Client
	ssm    *ssm.Client
	imds   *imds.Client
}

// ErrEndpoint is an endpoint that is not on this machine's loopback.
var ErrEndpoint = errors.New("aws.endpoint_url is for tests and takes a loopback address only")

// Open prepares the clients; it makes no call.
func Open(ctx context.Context, o Options) (*Cloud, error) {
	c := &Cloud{region: o.Region, poll: 5 * time.Second}
	load := []func(*config.LoadOptions) error{
		config.WithRegion(o.Region),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(r *retry.StandardOptions) { r.MaxAttempts, r.MaxBackoff = 5, c.patience() })
		}),
		config.WithLogger(logging.Nop{}), // the SDK's remarks are not for an operator
		config.WithAPIOptions([]func(*middleware.Stack) error{c.clock.note}),
	}
	// Never version 1: its answers can be had through a proxy.
	metadata := imds.Options{ClientEnableState: imds.ClientEnabled, EnableFallback: aws.FalseTernary}
	if o.Endpoint != "" {
		if err := loopback(o.Endpoint); err != nil {
			return nil, err
		}
		name := o.Profile
		if name == "" {
			name = "test"
		}
		c.poll = 20 * time.Millisecond
		metadata.Endpoint = o.Endpoint
		load = append(load, config.WithBaseEndpoint(o.Endpoint), config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(name, "test", "")))
	} else if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	conf, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("aws configuration: %w", err)
	}
	c.ec2 = ec2.NewFromConfig(conf)
	c.s3 = s3.NewFromConfig(conf, func(s *s3.Options) { s.UsePathStyle = o.Endpoint != "" })
	c.sts = sts.NewFromConfig(conf)
	c.rbin = rbin.NewFromConfig(conf)
	c.backup = backup.NewFromConfig(conf)
	c.trail = cloudtrail.NewFromConfig(conf)
	c.ssm = ssm.NewFromConfig(conf)
	c.imds = imds.New(metadata)
	return c, nil
}

func loopback(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEndpoint, err)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "http" || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%w, like http://127.0.0.1:5000: %q", ErrEndpoint, endpoint)
	}
	return nil
}

// patience is the longest pause between two tries of a call.
func (c *Cloud) patience() time.Duration { return 4 * c.poll }

// Region is the region all calls go to.
func (c *Cloud) Region() string { return c.region }

// Identity says as whom the calls are made; asked once.
func (c *Cloud) Identity(ctx context.Context) (Identity, error) {
	if id := c.whoami.Load(); id != nil {
		return *id, nil
	}
	out, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Identity{}, explain("who am I", err)
	}
	id := Identity{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn)}
	c.whoami.Store(&id)
	return id, nil
}

// Now is AWS' own clock, and how far this machine's is ahead of it: the age of
// a snapshot is judged by the clock that stamped it.
func (c *Cloud) Now(ctx context.Context) (now time.Time, ahead time.Duration, err error) {
	if _, _, ok := c.clock.read(); !ok {
		c.whoami.Store(nil)
		if _, err := c.Identity(ctx); err != nil {
			return time.Time{}, 0, err
		}
	}
	now, ahead, ok := c.clock.read()
	if !ok {
		return time.Time{}, 0, errors.New("AWS answered without a Date header")
	}
	return now, ahead, nil
}

// clock remembers the Date header of the last answer.
type clock struct{ last atomic.Pointer[tick] }

type tick struct{ theirs, ours time.Time }

func (c *clock) read() (now time.Time, ahead time.Duration, ok bool) {
	t := c.last.Load()
	if t == nil {
		return time.Time{}, 0, false
	}
	// Their clock has gone on since; ours.Sub is monotonic.
	return t.theirs.Add(time.Since(t.ours)), t.ours.Sub(t.theirs).Round(time.Second), true
}

// note is put into every client's stack and notes the Date header of each
// answer, also of those that refuse.
func (c *clock) note(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("noteDate", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if answer, ok := out.RawResponse.(*smithyhttp.Response); ok && answer != nil {
			if theirs, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
				c.last.Store(&tick{theirs: theirs, ours: time.Now()})
			}
		}
		return out, metadata, err
	}), middleware.After)
}

// Await reads until done, pausing between reads, and hands each reading's text
// to progress (which may be nil). It ends with the context's error when that
// is over: the caller sets the time-out and says what it waited for.
func (c *Cloud) Await(ctx context.Context, progress func(string), read func(context.Context) (done bool, text string, err error)) error {
	tick := time.NewTicker(c.poll)
	defer tick.Stop()
	for last := ""; ; {
		done, text, err := read(ctx)
		if err != nil {
			return err
		}
		if text != last && progress != nil {
			progress(text)
			last = text
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("last seen %s: %w", text, ctx.Err())
		case <-tick.C:
		}
	}
}
