package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const metricsShown = "cofferdam_time_to_"

// scrapeMetrics reads the operator's metrics as nobody, as somebody who may not, and as somebody who may.
func (d *demo) scrapeMetrics(ctx context.Context) error {
	may, err := d.tokenFor(ctx, namespace, "metrics-reader")
	if err != nil {
		return err
	}
	mayNot, err := d.tokenFor(ctx, namespace, "default")
	if err != nil {
		return err
	}
	say("The operator's metrics, at https://%s/metrics, asked for", d.manager.metrics)
	var problems []error
	for _, visitor := range []struct {
		who, token string
		want       int
	}{
		{"without a token", "", http.StatusUnauthorized},
		{"with the token of a service account that is bound to nothing", mayNot, http.StatusForbidden},
		{"with the token of one that is bound to cofferdam-metrics-reader", may, http.StatusOK},
	} {
		status, body, err := scrape(ctx, d.manager.metrics, visitor.token)
		if err != nil {
			return err
		}
		fmt.Printf("    %s: %d %s\n", visitor.who, status, http.StatusText(status))
		if status != visitor.want {
			problems = append(problems, fmt.Errorf("%s: got %d, want %d", visitor.who, status, visitor.want))
		}
		if status == http.StatusOK {
			problems = append(problems, showMetrics(body))
		}
	}
	d.check("the metrics are served over HTTPS, to those who may read them only, and count this incident", errors.Join(problems...))
	return nil
}

// showMetrics prints the sums and counts of the times that the operator measured.
func showMetrics(body string) error {
	for line := range strings.SplitSeq(body, "\n") {
		name, _, _ := strings.Cut(line, "{")
		if strings.HasPrefix(line, metricsShown) && !strings.HasSuffix(name, "_bucket") {
			fmt.Println("    " + line)
		}
	}
	for _, name := range []string{"contain", "recover"} {
		if want := metricsShown + name + `_seconds_count{severity="High"} 1` + "\n"; !strings.Contains(body, want) {
			return fmt.Errorf("%q is missing", strings.TrimSpace(want))
		}
	}
	return nil
}

func scrape(ctx context.Context, address, token string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// The manager makes its own certificate unless it is given one; it is on this machine's loopback interface.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("read the metrics: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, "", fmt.Errorf("read the metrics: %w", err)
	}
	return answer.StatusCode, string(body), nil
}
