package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Post sends a JSON body once. A receiver that has seen the key before has seen this very message. Success is an answer of 200 to 299; everything else is an error that says what it was.
func (c *Caller) Post(ctx context.Context, e *v1alpha1.Endpoint, key string, body []byte) (status int, err error) {
	httpClient, address, err := c.client(ctx, e)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("the address of endpoint %s is no URL that can be called", e.Name)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	req.Header.Set("User-Agent", "cofferdam")
	resp, err := httpClient.Do(req)
	if err != nil {
		if call, ok := errors.AsType[*url.Error](err); ok {
			err = brief(call)
		}
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // what it says is not used
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp.StatusCode, fmt.Errorf("it answered with status %d", resp.StatusCode)
	}
	return resp.StatusCode, nil
}
