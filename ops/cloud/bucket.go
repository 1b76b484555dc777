package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Bucket is a place in S3: a bucket and a prefix. Objects in it are written
// once or by compare-and-swap, and never deleted.
type Bucket struct {
	cloud        *Cloud
	name, prefix string
}

// Bucket opens s3://bucket/prefix; it makes no call.
func (c *Cloud) Bucket(uri string) (*Bucket, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.RawQuery != "" {
		return nil, fmt.Errorf("want s3://bucket/prefix, got %q", uri)
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &Bucket{cloud: c, name: u.Host, prefix: prefix}, nil
}

// String is the URI.
func (b *Bucket) String() string { return "s3://" + b.name + "/" + b.prefix }

// Create writes an object that must not exist; ErrExists where it does. A
// caller whose reply was lost reads it and compares.
func (b *Bucket) Create(ctx context.Context, key string, body []byte) error {
	_, err := b.put(ctx, key, body, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
	return explain("create "+b.String()+key, err)
}

// Swap writes an object over the version read before ("" where there was
// none), and returns the new version; ErrChanged where somebody else wrote it
// meanwhile.
func (b *Bucket) Swap(ctx context.Context, key, version string, body []byte) (string, error) {
	written, err := b.put(ctx, key, body, func(in *s3.PutObjectInput) {
		if version == "" {
			in.IfNoneMatch = aws.String("*")
		} else {
			in.IfMatch = aws.String(version)
		}
	})
	if err = explain("replace "+b.String()+key, err); errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return written, err
}

func (b *Bucket) put(ctx context.Context, key string, body []byte, condition func(*s3.PutObjectInput)) (string, error) {
	in := &s3.PutObjectInput{Bucket: aws.String(b.name), Key: aws.String(b.prefix + key), Body: bytes.NewReader(body), ServerSideEncryption: types.ServerSideEncryptionAes256}
	condition(in)
	out, err := b.cloud.s3.PutObject(ctx, in)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

// Get reads a small object, up to 16 MiB, with its version; ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (body []byte, version string, err error) {
	const most = 16 << 20
	r, version, err := b.Open(ctx, key)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = r.Close() }()
	body, err = io.ReadAll(io.LimitReader(r, most+1))
	if len(body) > most {
		err = fmt.Errorf("%s%s is larger than %d bytes", b, key, most)
	}
	return body, version, err
}

// Open reads an object as a stream; the caller closes it.
func (b *Bucket) Open(ctx context.Context, key string) (r io.ReadCloser, version string, err error) {
	out, err := b.cloud.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(b.name), Key: aws.String(b.prefix + key)})
	if err != nil {
		return nil, "", explain("read "+b.String()+key, err)
	}
	return out.Body, aws.ToString(out.ETag), nil
}

// Object is an entry of a list.
type Object struct {
	Key     string // without the bucket's prefix
	Bytes   int64
	Written time.Time
}

// List lists the objects under a prefix, in the order of their keys.
func (b *Bucket) List(ctx context.Context, under string) ([]Object, error) {
	var all []Object
	for pages := s3.NewListObjectsV2Paginator(b.cloud.s3, &s3.ListObjectsV2Input{Bucket: aws.String(b.name), Prefix: aws.String(b.prefix + under)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("list "+b.String()+under, err)
		}
		for _, o := range page.Contents {
			all = append(all, Object{Key: strings.TrimPrefix(aws.ToString(o.Key), b.prefix), Bytes: aws.ToInt64(o.Size), Written: aws.ToTime(o.LastModified)})
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}

// Upload writes a stream of any length, in parts, encrypted at rest, to an
// object that must not exist. Nothing is left of it when the reader fails:
// neither an object nor parts that cost.
func (b *Bucket) Upload(ctx context.Context, key string, r io.Reader) error {
	up := manager.NewUploader(b.cloud.s3, func(u *manager.Uploader) { u.Concurrency = 2 }) //nolint:staticcheck // its successor has no version that goes with the others
	// A pipe that is an *os.File says it can seek and then cannot; as a plain
	// reader it is read once.
	_, err := up.Upload(ctx, &s3.PutObjectInput{ //nolint:staticcheck // as above
		Bucket: aws.String(b.name), Key: aws.String(b.prefix + key), Body: struct{ io.Reader }{r}, ServerSideEncryption: types.ServerSideEncryptionAes256, IfNoneMatch: aws.String("*"),
	})
	return explain("upload "+b.String()+key, err)
}
