// Package probe makes the HTTP requests and TCP connections of a verify step, from inside a pod. What it has found is its exit code and the end of its log.
package probe

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// limit is how long one check may take, and pause how long it is until all are made again.
	limit = 5 * time.Second
	pause = time.Second
	// maxBody is how much of an answer is searched for a text.
	maxBody = 64 << 10
)

// Checks are what a probe pod looks at.
type Checks struct {
	HTTP []v1alpha1.HTTPCheck `json:"http,omitempty"`
	TCP  []v1alpha1.TCPCheck  `json:"tcp,omitempty"`
	// Seconds is how long they are repeated.
	Seconds int32 `json:"seconds"`
}

// Encode makes the checks an argument of the pod.
func (c Checks) Encode() (string, error) {
	raw, err := json.Marshal(c)
	return string(raw), err
}

// Decode reads that argument.
func Decode(arg string) (Checks, error) {
	var c Checks
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return Checks{}, fmt.Errorf("reading what is to be checked: %w", err)
	}
	if len(c.HTTP)+len(c.TCP) == 0 {
		return Checks{}, errors.New("there is nothing to check")
	}
	return c, nil
}

// Run repeats the checks until all of them have succeeded within one round, or the time is over. It returns what was wrong in the last whole round.
func Run(ctx context.Context, c Checks) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Seconds)*time.Second)
	defer cancel()
	return repeat(ctx, func(ctx context.Context) error { return round(ctx, c) })
}

// repeat makes rounds until one succeeds or the deadline of ctx, which must have one, has come.
func repeat(ctx context.Context, round func(context.Context) error) error {
	deadline, _ := ctx.Deadline()
	var last error
	for {
		err := round(ctx)
		if err == nil {
			return nil
		}
		// What was cut short by the end of the time says less than the round before. A connection may notice that end before ctx does: the clock is asked.
		over := ctx.Err() != nil || !time.Now().Before(deadline)
		if over && last != nil {
			return last
		}
		last = err
		select {
		case <-ctx.Done():
			return last
		case <-time.After(pause):
		}
	}
}

func round(ctx context.Context, c Checks) error {
	var failures []error
	for _, check := range c.HTTP {
		if err := get(ctx, check); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", check.URL, err))
		}
	}
	for _, check := range c.TCP {
		if err := connect(ctx, check); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func get(ctx context.Context, check v1alpha1.HTTPCheck) error {
	client := &http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: check.Certificate == v1alpha1.CertificateIgnore, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, check.URL, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			return inner // it names the URL, as its caller does
		}
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read as far as is wanted
	if why := unwanted(resp.StatusCode, check.Status); why != "" {
		return errors.New(why)
	}
	if check.Contains == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if !strings.Contains(string(body), check.Contains) {
		return fmt.Errorf("the answer does not contain %q", check.Contains)
	}
	return nil
}

// unwanted says why the status code is not what is wanted, or "".
func unwanted(got int, want int32) string {
	switch {
	case want == 0 && (got < 200 || got > 299):
		return fmt.Sprintf("the status is %d, not 200 to 299", got)
	case want != 0 && got != int(want):
		return fmt.Sprintf("the status is %d, not %d", got, want)
	}
	return ""
}

func connect(ctx context.Context, check v1alpha1.TCPCheck) error {
	dialer := net.Dialer{Timeout: limit}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(check.Host, strconv.Itoa(int(check.Port))))
	if err != nil {
		return err // it names host and port
	}
	return conn.Close()
}
