// Package mototest starts moto, an AWS that others wrote, so that not only our
// own fake is believed. What moto does not have is answered by the fake: Recycle
// Bin, CloudTrail, the list of snapshot locks. Where moto is kinder than AWS:
//
//	snapshots are completed and volumes modified at once; a volume may shrink,
//	be modified again at once, and be attached in another zone
//	RunInstances' client token is ignored
//	CreateImage with tags for image and snapshots is not implemented
//	DetachVolume of the root of a running instance is not refused
//	SSM says Success and runs nothing: no salvage
//	no machine boots, the console is the same for all: here it says what a
//	rescue instance says at its good end
package mototest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"gt06/ops/cloud/fake"
)

// Start runs a moto of its own for a test and fills it like
// [fake.AWS.Production], with ids of its own.
func Start(t *testing.T) fake.Site {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(here), "../../../.cache/moto/bin/moto_server")
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: .ci/test installs it", err)
		}
		t.Skip("moto is not installed: .ci/test does it")
	}
	cmd := exec.CommandContext(t.Context(), program, "-H", "127.0.0.1", "-p", "0") //nolint:gosec // a path of this checkout
	cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "MOTO_EC2_LOAD_DEFAULT_AMIS=false")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the context is over by then
	found := make(chan string, 1)
	go func() {
		running := regexp.MustCompile(`Running on (http://[0-9.:]+)`)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case endpoint := <-found:
		site := fill(t, endpoint)
		site.Endpoint = with(t, endpoint)
		return site
	case <-time.After(time.Minute):
		t.Fatal("moto does not say where it listens")
		return fake.Site{}
	}
}

// with puts the fake beside moto for what moto lacks.
func with(t *testing.T, moto string) string {
	t.Helper()
	target, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	beside := fake.New()
	t.Cleanup(beside.Close)
	beside.Production()
	lacking := regexp.MustCompile(`/(rbin|cloudtrail|backup)/aws4_request`)
	action := regexp.MustCompile(`Action=(DescribeLockedSnapshots|ListSnapshotsInRecycleBin)(&|$)`)
	console := regexp.MustCompile(`Action=GetConsoleOutput(&|$)`)
	proxy := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if lacking.MatchString(r.Header.Get("Authorization")) || action.Match(body) {
			beside.ServeHTTP(w, r)
			return
		}
		if console.Match(body) {
			said := base64.StdEncoding.EncodeToString([]byte("gt06ops-rescue: done\n"))
			_, _ = io.WriteString(w, "<GetConsoleOutputResponse><output>"+said+"</output></GetConsoleOutputResponse>")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

func fill(t *testing.T, endpoint string) fake.Site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conf := aws.Config{Region: fake.Region, BaseEndpoint: aws.String(endpoint), Credentials: credentials.NewStaticCredentialsProvider("setup", "test", "")}
	client := ec2.NewFromConfig(conf)
	s := fake.Site{Endpoint: endpoint, Region: fake.Region, Name: "quickport-prod", Bucket: "quickport-ops"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	image, err := client.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("base"), RootDeviceName: aws.String("/dev/sda1")})
	must(err)
	run, err := client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: image.ImageId, InstanceType: types.InstanceTypeT3Small, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), Placement: &types.Placement{AvailabilityZone: aws.String(fake.Region + "a")},
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(30), VolumeType: types.VolumeTypeGp3, DeleteOnTermination: aws.Bool(false)}}},
		TagSpecifications:   []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String(s.Name)}, {Key: aws.String("gt06ops:managed"), Value: aws.String("true")}}}},
	})
	must(err)
	s.Instance = *run.Instances[0].InstanceId
	described, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{s.Instance}})
	must(err)
	s.Volume = *described.Reservations[0].Instances[0].BlockDeviceMappings[0].Ebs.VolumeId
	address, err := client.AllocateAddress(ctx, &ec2.AllocateAddressInput{Domain: types.DomainTypeVpc})
	must(err)
	s.Allocation, s.IP = *address.AllocationId, *address.PublicIp
	_, err = client.AssociateAddress(ctx, &ec2.AssociateAddressInput{AllocationId: address.AllocationId, InstanceId: aws.String(s.Instance)})
	must(err)
	buckets := s3.NewFromConfig(conf, func(o *s3.Options) { o.UsePathStyle = true })
	_, err = buckets.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(s.Bucket), CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: fake.Region}})
	must(err)
	return s
}
