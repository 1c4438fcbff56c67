#!/bin/bash
# Two networks: sessions, registrations and peers survive the loss of one path without failover.
# lab: --hosts 6 --nets 2
# cases: debian preload
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
capture -n 1 "$LAB_OUT/cap1.pcap" sctp or udp or tcp
run_by "${1:?case}"
ours reg h1 0x00000b01
ready reg
theirs peer h2 0x00000b02
server pingpong pp3 h3 -identifier=0x00000301 -rereginterval=4000 $(only reg)
check "element registers" 15 holds reg PingPongPool 0x00000301
addresses() { page reg /handlespace | grep -o '"10\.0\.1\.3:[0-9]*"' | head -n 1 | grep -q .; }
check "element is held with its addresses in both networks" 2 addresses
user pingpong pu h5
check "user is served" 15 served pingpong pu 5
server pingpong pp4 h4 -identifier=0x00000401 -rereginterval=4000
check "another element to go to" 15 holds reg PingPongPool 0x00000401
ready peer
check "peers meet" 15 peers reg 1
say "net 0 of the element is cut"
hostlink h3 -n 0 cut
BEFORE[pu]=$(progress pingpong pu)
check "session goes on" 15 served pingpong pu 20
sleep 6
# Two threads of it write at the same time, so some lines are broken.
only_one() {
    [ "$(grep -aoE 'from PE \$[0-9a-f]{8} ' "$LOGS/pu.log" | sort | uniq -c | awk '$1 > 3' | wc -l)" = 1 ]
}
check "with the same element" 1 only_one
check "element stays registered" 1 holds reg PingPongPool 0x00000301
hostlink h3 -n 0 heal
say "net 0 of the registrar is cut"
hostlink h1 -n 0 cut
sleep 8
check "elements stay registered without the registrar's net 0" 1 holds reg PingPongPool 0x00000301
check "peer stays" 1 peers reg 1
hostlink h1 -n 0 heal
stop pu pp3 pp4 peer reg
