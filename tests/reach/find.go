// A program with a resolver of its own (no libc): asks the name server of its argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
)

func main() {
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, os.Args[1])
		},
	}
	ctx := context.Background()
	addresses, err := resolver.LookupHost(ctx, "WebPool.pool")
	if err != nil {
		panic(err)
	}
	// One element's, of either family.
	fmt.Println(len(addresses), "addresses")
	name, services, err := resolver.LookupSRV(ctx, "http", "tcp", "WebPool.pool")
	if err != nil {
		panic(err)
	}
	ports := []int{}
	for _, service := range services {
		ports = append(ports, int(service.Port))
	}
	sort.Ints(ports)
	fmt.Println(name, ports[0], ports[1])
	_, err = resolver.LookupHost(ctx, "nobody.pool")
	var known *net.DNSError
	fmt.Println("no such host:", errors.As(err, &known) && known.IsNotFound)
}
