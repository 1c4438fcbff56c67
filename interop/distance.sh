#!/bin/bash
# Policies with a distance penalty: how far elements are is measured, rounded to 50 ms, and passed on.
# An element is 60 ms away, a registrar of ours 80 ms, one of Debian's next door.
# lab: --hosts 5
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
hostlink h3 netem delay 60ms
hostlink h2 netem delay 80ms
ours near h1 0x00000b01
ready near
ours far h2 0x00000b02
theirs their h4 0x00000b03
ready far
waitfor 20 "$LOGS/their.log" 'Mentor discovery\|Peer.*b01\|00000b01' >/dev/null
check "registrars meet" 15 peers near 2
for policy in LeastUsedDPF:0.5 LeastUsedDegradationDPF:0.1:0.3 WeightedRandomDPF:11:0.6; do
    name=${policy%%:*}
    element "$name" h3 -echo "-poolhandle=$name" "-policy=$policy" -rereginterval=3000 $(only near)
done
# distances NAME: of all elements of `near` at a registrar of ours, in order.
homes() { page "$1" /handlespace | grep -o '"home":"[^"]*"\|"distance":[0-9]*' | paste -d' ' - -; }
distances() { homes "$1" | grep 00000b01 | grep -o '"distance":[0-9]*' | sort | uniq -c | tr -s ' \n' ' '; }
are() { [ "$(distances "$1")" = " 3 \"distance\":$2 " ]; }
check "element is as far as half its round trip" 15 are near 50
check "farther from a registrar that is far itself" 15 are far 150
# rsplib measures in the kernel's ticks of 10 ms: what it adds for its neighbour is nothing.
at_theirs() {
    RSP_ANNOUNCE=off RSP_TRANSPORT=sctp host h5 timeout 5 "$BUILD/rspctl" resolve LeastUsedDPF \
        --registrar "$(address their):$(asap_port their)" 2>&1 | tee "$LOGS/resolved" | grep -q 'distance=50ms'
}
check "Debian's registrar hears of it" 15 at_theirs
# rsplib's registrars put acknowledgements off by 200 ms (3.5.10, on ENRP's port): that is no distance.
element Theirs h5 -echo -poolhandle=Theirs -policy=LeastUsedDPF:0.5 -rereginterval=3000 $(only their)
is_near() { homes "$1" | grep 00000b03 | grep -q '"distance":0$'; }
check "element at theirs is near" 15 is_near near
sleep 3
check "and stays near" 2 is_near near
# Not the other way: Linux smooths in whole ticks, and comes down to 7 of them, here 70 ms.
hostlink h3 netem delay 160ms
check "and is farther when it moves away" 40 are near 150
