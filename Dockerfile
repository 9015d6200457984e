FROM golang:1.26 AS builder
ARG TARGETOS
ARG TARGETARCH
WORKDIR /src
# The modules first, so that a change of code does not download them again.
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY cmd/ cmd/
COPY controllers/ controllers/
COPY config/guard/ config/guard/
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -ldflags="-s -w" -o /manager ./cmd/manager \
 && CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -ldflags="-s -w" -o /kubectl-incident ./cmd/kubectl-incident

FROM gcr.io/distroless/static:nonroot
COPY --from=builder /manager /manager
# For reading evidence where the volume is: see "Evidence" in README.md.
COPY --from=builder /kubectl-incident /kubectl-incident
USER 65532:65532
ENTRYPOINT ["/manager"]
