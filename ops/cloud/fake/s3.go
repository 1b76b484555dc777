package fake

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // what S3 calls an ETag
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// store is S3: objects by bucket/key, and uploads that are not complete.
type store struct {
	buckets map[string]bool
	objects map[string]stored
	uploads map[string]*upload
}

type stored struct {
	body    []byte
	tag     string
	written time.Time
}

type upload struct {
	path  string
	parts map[int][]byte
}

func newStore() store {
	return store{buckets: map[string]bool{}, objects: map[string]stored{}, uploads: map[string]*upload{}}
}

// MakeBucket adds a bucket.
func (a *AWS) MakeBucket(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.store.buckets[name] = true
}

// Objects returns the objects under bucket/prefix by their path.
func (a *AWS) Objects(under string) map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string][]byte{}
	for path, o := range a.store.objects {
		if strings.HasPrefix(path, under) {
			out[path] = o.body
		}
	}
	return out
}

// Tamper replaces an object past all rules, or removes it where body is nil.
func (a *AWS) Tamper(path string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if body == nil {
		delete(a.store.objects, path)
		return
	}
	a.store.objects[path] = stored{body, etag(body), a.now()}
}

// Uploads counts the multipart uploads that were begun and neither completed
// nor aborted.
func (a *AWS) Uploads() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.store.uploads)
}

func etag(body []byte) string {
	sum := md5.Sum(body) //nolint:gosec // as above
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// payload reads a body, taking the chunks of aws-chunked apart.
func payload(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(io.LimitReader(r.Body, 64<<20))
	}
	var out bytes.Buffer
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			_, err = io.Copy(io.Discard, in)
			return out.Bytes(), err
		}
		if _, err := io.CopyN(&out, in, n); err != nil {
			return nil, err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return nil, err
		}
	}
}

// s3Actions are the actions by method and the query's telling key.
var s3Actions = []struct { //nolint:gochecknoglobals // a table
	method, query string
	onBucket      bool
	action        string
	do            func(*AWS, *request, string) (answer, error)
}{
	{http.MethodGet, "", true, "ListObjectsV2", (*AWS).listObjects},
	{http.MethodGet, "", false, "GetObject", (*AWS).getObject},
	{http.MethodPost, "uploads", false, "CreateMultipartUpload", (*AWS).createUpload},
	{http.MethodPut, "partNumber", false, "UploadPart", (*AWS).uploadPart},
	{http.MethodPost, "uploadId", false, "CompleteMultipartUpload", (*AWS).completeUpload},
	{http.MethodDelete, "uploadId", false, "AbortMultipartUpload", (*AWS).abortUpload},
	{http.MethodPut, "", false, "PutObject", (*AWS).putObject},
	{http.MethodDelete, "", false, "DeleteObject", (*AWS).deleteObject},
}

func s3Match(r *request) int {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return slices.IndexFunc(s3Actions, func(s struct {
		method, query string
		onBucket      bool
		action        string
		do            func(*AWS, *request, string) (answer, error)
	},
	) bool {
		return s.method == r.Method && s.onBucket == (key == "") && (s.query == "" || r.URL.Query().Has(s.query))
	})
}

func s3Action(r *request) string {
	if i := s3Match(r); i >= 0 {
		return s3Actions[i].action
	}
	return r.Method
}

// s3Permission is the name IAM knows an action by.
func s3Permission(action string) string {
	switch action {
	case "ListObjectsV2":
		return "s3:ListBucket"
	case "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		return "s3:PutObject"
	}
	return "s3:" + action
}

func (a *AWS) s3(r *request) (answer, error) {
	i := s3Match(r)
	path := strings.TrimPrefix(r.URL.Path, "/")
	bucket, _, _ := strings.Cut(path, "/")
	if i < 0 {
		return answer{}, &refusal{http.StatusNotImplemented, "NotImplemented", r.Method}
	}
	c := Call{Action: s3Permission(r.action), Changes: r.Method != http.MethodGet, Resources: []Resource{{ARN: "arn:aws:s3:::" + strings.TrimSuffix(path, "/")}}}
	if r.action == "ListObjectsV2" {
		c.Context = map[string]string{"s3:prefix": r.URL.Query().Get("prefix")}
	}
	if err := a.admit(r, c); err != nil {
		return answer{}, err
	}
	if !a.store.buckets[bucket] {
		err := &refusal{http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist"}
		a.settled(err)
		return answer{}, err
	}
	out, err := s3Actions[i].do(a, r, path)
	if err != nil {
		a.settled(err)
	}
	return out, err
}

func s3Refusal(_ *request, e *refusal) answer {
	return answer{status: e.status, kind: "application/xml", body: document("Error", "", el("Code", e.code), el("Message", e.message), el("RequestId", "fake"))}
}

// condition is If-None-Match and If-Match of a write.
func (a *AWS) condition(r *request, path string) error {
	old, exists := a.store.objects[path]
	failed := &refusal{http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"}
	if r.Header.Get("If-None-Match") == "*" && exists {
		return failed
	}
	if want := r.Header.Get("If-Match"); want != "" {
		if !exists {
			return &refusal{http.StatusNotFound, "NoSuchKey", "The specified key does not exist."}
		}
		if strings.Trim(want, `"`) != strings.Trim(old.tag, `"`) {
			return failed
		}
	}
	return nil
}

func (a *AWS) putObject(r *request, path string) (answer, error) {
	if err := a.condition(r, path); err != nil {
		return answer{}, err
	}
	o := stored{r.body, etag(r.body), a.now()}
	a.store.objects[path] = o
	return answer{header: map[string]string{"ETag": o.tag}}, nil
}

func (a *AWS) getObject(_ *request, path string) (answer, error) {
	o, ok := a.store.objects[path]
	if !ok {
		return answer{}, &refusal{http.StatusNotFound, "NoSuchKey", "The specified key does not exist."}
	}
	return answer{kind: "application/octet-stream", header: map[string]string{"ETag": o.tag}, body: o.body}, nil
}

func (a *AWS) deleteObject(_ *request, path string) (answer, error) {
	delete(a.store.objects, path)
	return answer{status: http.StatusNoContent}, nil
}

func (a *AWS) listObjects(r *request, path string) (answer, error) {
	bucket := strings.TrimSuffix(path, "/")
	prefix := r.URL.Query().Get("prefix")
	kids := []node{el("Name", bucket), el("Prefix", prefix), el("IsTruncated", false)}
	for _, p := range slices.Sorted(maps.Keys(a.store.objects)) {
		if key, ok := strings.CutPrefix(p, bucket+"/"); ok && strings.HasPrefix(key, prefix) {
			o := a.store.objects[p]
			kids = append(kids, in("Contents", el("Key", key), el("LastModified", o.written), el("ETag", o.tag), el("Size", len(o.body))))
		}
	}
	return answer{kind: "application/xml", body: document("ListBucketResult", "http://s3.amazonaws.com/doc/2006-03-01/", kids...)}, nil
}

func (a *AWS) createUpload(_ *request, path string) (answer, error) {
	id := a.id("upload")
	a.store.uploads[id] = &upload{path: path, parts: map[int][]byte{}}
	bucket, key, _ := strings.Cut(path, "/")
	return answer{kind: "application/xml", body: document("InitiateMultipartUploadResult", "http://s3.amazonaws.com/doc/2006-03-01/", el("Bucket", bucket), el("Key", key), el("UploadId", id))}, nil
}

func (a *AWS) uploading(r *request) (*upload, error) {
	u, ok := a.store.uploads[r.URL.Query().Get("uploadId")]
	if !ok {
		return nil, &refusal{http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist."}
	}
	return u, nil
}

func (a *AWS) uploadPart(r *request, _ string) (answer, error) {
	u, err := a.uploading(r)
	if err != nil {
		return answer{}, err
	}
	n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if err != nil {
		return answer{}, refuse("InvalidArgument", "part number")
	}
	u.parts[n] = r.body
	return answer{header: map[string]string{"ETag": etag(r.body)}}, nil
}

func (a *AWS) completeUpload(r *request, path string) (answer, error) {
	u, err := a.uploading(r)
	if err != nil {
		return answer{}, err
	}
	if err := a.condition(r, path); err != nil {
		return answer{}, err
	}
	var q struct {
		Part []struct{ PartNumber int }
	}
	if err := xml.Unmarshal(r.body, &q); err != nil {
		return answer{}, refuse("MalformedXML", "%v", err)
	}
	var whole []byte
	for _, p := range q.Part {
		whole = append(whole, u.parts[p.PartNumber]...)
	}
	o := stored{whole, fmt.Sprintf(`%s-%d"`, strings.TrimSuffix(etag(whole), `"`), len(q.Part)), a.now()}
	a.store.objects[path] = o
	delete(a.store.uploads, r.URL.Query().Get("uploadId"))
	bucket, key, _ := strings.Cut(path, "/")
	return answer{kind: "application/xml", body: document("CompleteMultipartUploadResult", "http://s3.amazonaws.com/doc/2006-03-01/", el("Bucket", bucket), el("Key", key), el("ETag", o.tag))}, nil
}

func (a *AWS) abortUpload(r *request, _ string) (answer, error) {
	delete(a.store.uploads, r.URL.Query().Get("uploadId"))
	return answer{status: http.StatusNoContent}, nil
}
