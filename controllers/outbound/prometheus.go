package outbound

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Sample is one sample of the result of a query.
type Sample struct {
	Value  float64
	Labels map[string]string
}

// Query evaluates an instant query. A scalar is one sample without labels. A query that Prometheus has refused is a RefusedError; every other error means that nothing is known.
func (c *Caller) Query(ctx context.Context, e *v1alpha1.Endpoint, query string, at time.Time) ([]Sample, error) {
	httpClient, address, err := c.client(ctx, e)
	if err != nil {
		return nil, err
	}
	prometheus, err := api.NewClient(api.Config{Address: address, Client: httpClient})
	if err != nil {
		return nil, fmt.Errorf("the address of Prometheus %s is no URL that can be called", e.Name)
	}
	result, warnings, _, err := promv1.NewAPI(prometheus).Query(ctx, query, at, promv1.WithTimeout(Limit))
	if err != nil {
		return nil, told(err)
	}
	if len(warnings) > 0 {
		// What is behind Prometheus may answer in part, and what is missing is what would say no.
		return nil, fmt.Errorf("the answer is not taken, because it may not be whole: %s", strings.Join(warnings, "; "))
	}
	switch v := result.(type) {
	case model.Vector:
		return samples(v)
	case *model.Scalar:
		return []Sample{{Value: float64(v.Value)}}, nil
	}
	return nil, RefusedError{Why: fmt.Sprintf("the query yields a %s, not a vector or a scalar", result.Type())}
}

// RefusedError says why a query cannot be answered, however often it is asked.
type RefusedError struct{ Why string }

func (r RefusedError) Error() string { return r.Why }

func told(err error) error {
	if known, ok := errors.AsType[*promv1.Error](err); ok && known.Type == promv1.ErrBadData {
		return RefusedError{Why: known.Msg}
	}
	if call, ok := errors.AsType[*url.Error](err); ok {
		return brief(call)
	}
	return err
}

// samples are the samples of a vector. A histogram has no value that could be compared.
func samples(vector model.Vector) ([]Sample, error) {
	out := make([]Sample, 0, len(vector))
	for _, s := range vector {
		if s.Histogram != nil {
			return nil, RefusedError{Why: fmt.Sprintf("the query yields a histogram, %s, which has no value: use histogram_quantile or histogram_count", s.Metric)}
		}
		labels := map[string]string{}
		for name, value := range s.Metric {
			labels[string(name)] = string(value)
		}
		out = append(out, Sample{Value: float64(s.Value), Labels: labels})
	}
	return out, nil
}
