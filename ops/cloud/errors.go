package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// What callers test for.
var (
	ErrNotFound    = errors.New("not found in this account and region")
	ErrDenied      = errors.New("not allowed by IAM")
	ErrCredentials = errors.New("no usable AWS credentials")
	ErrExists      = errors.New("exists already")       // an object that may be written once
	ErrChanged     = errors.New("changed by another")   // compare-and-swap lost
	ErrProtected   = errors.New("refused by this tool") // not tagged rescue or temp
	ErrUnsupported = errors.New("not offered here")     // by this endpoint
)

// Error is a refused or failed call with what support asks for.
type Error struct {
	Doing     string // "create snapshot of vol-1"
	Code      string // AWS' code, "" where the call did not get through
	Message   string
	RequestID string
	kind      error
	cause     error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%s: %v", e.Doing, e.cause)
	}
	text := fmt.Sprintf("%s: %s (%s)", e.Doing, e.Message, e.Code)
	if e.RequestID != "" {
		text += ", request " + e.RequestID
	}
	return text
}

// Unwrap lets callers test for the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// kinds maps AWS' codes; a code that ends in * is a prefix, one that begins
// with * a suffix.
var kinds = []struct { //nolint:gochecknoglobals // a table
	code string
	kind error
}{
	{"*.NotFound", ErrNotFound},
	{"NoSuchKey", ErrNotFound},
	{"NoSuchBucket", ErrNotFound},
	{"NotFound", ErrNotFound},
	{"ResourceNotFoundException", ErrNotFound},
	{"UnauthorizedOperation", ErrDenied},
	{"AccessDenied*", ErrDenied},
	{"AuthFailure", ErrCredentials},
	{"*ClientTokenId", ErrCredentials},
	{"ExpiredToken*", ErrCredentials},
	{"RequestExpired", ErrCredentials},
	{"SignatureDoesNotMatch", ErrCredentials},
	{"UnrecognizedClientException", ErrCredentials},
	{"PreconditionFailed", ErrExists},
	{"ConditionalRequestConflict", ErrExists},
	{"InvalidAction", ErrUnsupported},
	{"NotImplemented*", ErrUnsupported},
}

// explain makes an Error of what the SDK returned; nil stays nil.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Doing: doing, cause: err}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		e.RequestID = response.ServiceRequestID()
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "credentials") {
			e.kind = ErrCredentials
		}
		return e
	}
	e.Code, e.Message = api.ErrorCode(), api.ErrorMessage()
	for _, k := range kinds {
		prefix, isPrefix := strings.CutSuffix(k.code, "*")
		suffix, isSuffix := strings.CutPrefix(k.code, "*")
		if e.Code == k.code || isPrefix && strings.HasPrefix(e.Code, prefix) || isSuffix && strings.HasSuffix(e.Code, suffix) {
			e.kind = k.kind
			break
		}
	}
	return e
}

// hasCode says whether a call was refused with one of the codes.
func hasCode(err error, codes ...string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(codes, api.ErrorCode())
}

// dryRun turns the answer to a call with DryRun into yes (nil) or the refusal.
func dryRun(doing string, err error) error {
	if hasCode(err, "DryRunOperation") {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s: a call with DryRun was carried out", doing)
	}
	return explain(doing, err)
}

// refusedOnly retries what AWS refused for its rate, and nothing else: after a
// lost reply or a server error the object may be there, and a second call
// would make a second one. The caller looks for it by its tags instead.
func (c *Cloud) refusedOnly() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = 8, c.patience()
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes}}
	})
}

// once looks for an object, makes it where there is none, and after a reply
// that was lost looks again before it makes another.
func once[T any](ctx context.Context, c *Cloud, doing string, find func(context.Context) (T, bool, error), create func(context.Context) (T, error)) (T, error) {
	var zero T
	const tries = 3
	for try := 1; ; try++ {
		found, ok, err := find(ctx)
		if err != nil || ok {
			return found, err
		}
		made, err := create(ctx)
		if err == nil {
			return made, nil
		}
		_, answered := errors.AsType[smithy.APIError](err)
		if answered && !serverSide(err) || try == tries || ctx.Err() != nil {
			return zero, explain(doing, err)
		}
		// The call may have had its effect without a reply, and a new object is
		// not at once in every list.
		err = c.Await(ctx, nil, atMost(3, func(ctx context.Context) (bool, error) {
			found, ok, err = find(ctx)
			return ok, err
		}))
		if err != nil || ok {
			return found, err
		}
	}
}

// atMost ends a wait after n reads, found or not.
func atMost(n int, read func(context.Context) (bool, error)) func(context.Context) (bool, string, error) {
	return func(ctx context.Context) (bool, string, error) {
		n--
		ok, err := read(ctx)
		return ok || n <= 0, "", err
	}
}

func serverSide(err error) bool {
	response, ok := errors.AsType[*awshttp.ResponseError](err)
	return ok && response.HTTPStatusCode() >= 500
}
