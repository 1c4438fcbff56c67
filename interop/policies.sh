#!/bin/bash
# Every policy that Debian's rspserver can set, with our registrar: two elements of each register and
# register again, are held with the values that they gave, and are chosen as their policy wants.
# lab: --hosts 4
# cases: plain adaptive distance
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
ours reg h1 0x00000b01
ready reg
# Of PriorityLeastUsedDegradationDPF, rspserver 3.4.4 itself says "Unknown policy" and ends.
case ${1:?case} in
    plain) policies="RoundRobin WeightedRoundRobin:7 Random WeightedRandom:9 Priority:3" ;;
    adaptive) policies="LeastUsed LeastUsedDegradation:0.25 PriorityLeastUsed:0.125
        PriorityLeastUsedDegradation:0.5 RandomizedLeastUsed RandomizedPriorityLeastUsed" ;;
    distance) policies="LeastUsedDPF:0.75 LeastUsedDegradationDPF:0.1:0.3 WeightedRandomDPF:11:0.6" ;;
esac
names=()
for policy in $policies; do
    name=${policy%%:*}
    names+=("$name")
    element "a-$name" h2 -echo "-poolhandle=$name" "-policy=$policy" -rereginterval=4000
    element "b-$name" h3 -echo "-poolhandle=$name" "-policy=$policy" -rereginterval=4000
done
complete() {
    page reg /handlespace >"$LOGS/page"
    [ "$(grep -o '"id":' "$LOGS/page" | wc -l)" = $((2 * ${#names[@]})) ]
}
check "all register" 20 complete
for name in "${names[@]}"; do
    check "$name: held as that" 1 grep -qF "\"handle\":\"$name\",\"policy\":\"$name\"" "$LOGS/page"
    term "pu-$name" h4 stock rspterminal "-poolhandle=$name" $PULOG
done
for name in "${names[@]}"; do
    check "$name: serves a user" 15 served echo "pu-$name" 1
    stop "pu-$name"
done
# By now they have registered again, and answered keep-alives.
sleep 2
check "all still there" 1 complete
