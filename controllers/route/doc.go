// Package route answers which Services, EndpointSlices, Ingresses and Gateway API routes lead to a pod.
//
// It is pure: it reads no cluster, no clock and no global state. It answers from objects alone, so a route says that something is set up to send traffic to
// the pod, and not that any of it arrives: NetworkPolicies may stop it, and package isolation proves whether they do.
//
// Where an object cannot be read, or where only an extension knows what it means, the package names it as one that may lead to the pod. It never leaves a path
// out on doubt. What it does not see: Services of type ExternalName (aliases, which DNS resolves), backends that exist only in annotations of one
// Ingress controller, filters of Gateway routes that only one implementation knows (extensionRef), addresses that the pod has on a second network, and
// core/v1 Endpoints, which the EndpointSliceMirroring controller mirrors into EndpointSlices.
package route
