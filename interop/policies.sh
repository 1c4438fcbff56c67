#!/bin/bash
# Every policy that Debian's rspserver can set, with our registrar: two elements of each register and
# register again, are held with the values that they gave, and are chosen as their policy wants.
# lab: --hosts 4
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
ours reg h1 0x00000b01
ready reg
# Of PriorityLeastUsedDegradationDPF, rspserver 3.4.4 itself says "Unknown policy" and ends.
policies="RoundRobin WeightedRoundRobin:7 Random WeightedRandom:9 Priority:3 LeastUsed
    LeastUsedDegradation:0.25 PriorityLeastUsed:0.125 PriorityLeastUsedDegradation:0.5 RandomizedLeastUsed
    RandomizedPriorityLeastUsed LeastUsedDPF:0.75 LeastUsedDegradationDPF:0.1:0.3 WeightedRandomDPF:11:0.6"
names=()
for policy in $policies; do
    name=${policy%%:*}
    names+=("$name")
    element "a-$name" h2 -echo "-poolhandle=$name" "-policy=$policy" -rereginterval=4000
    element "b-$name" h3 -echo "-poolhandle=$name" "-policy=$policy" -rereginterval=4000
done
two() { [ "$(view reg | grep -c "^$1 ")" = 2 ]; }
named() { page reg /handlespace | grep -qF "\"handle\":\"$1\",\"policy\":\"$1\""; }
for name in "${names[@]}"; do
    check "$name: both register" 20 two "$name"
    check "$name: held as that" 2 named "$name"
done
for name in "${names[@]}"; do
    term "pu-$name" h4 stock rspterminal "-poolhandle=$name" $PULOG
    check "$name: serves a user" 15 served echo "pu-$name" 1
    stop "pu-$name"
done
for name in "${names[@]}"; do
    check "$name: still there" 1 two "$name"
done
