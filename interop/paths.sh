#!/bin/bash
# Two networks, of which now the one is lost and now the other, sooner than anybody gives a path up: the element
# stays in its pool, and its session goes on.
# lab: --hosts 3 --nets 2
# cases: debian preload
. "$(dirname "$0")/common.inc"
run_by "${1:?case}"
ours reg h1 0x00000b01
ready reg
server pingpong pe h2 -identifier=0x00000201 -rereginterval=4000 $(only reg)
check "element registers" 15 holds reg PingPongPool 0x00000201
user pingpong pu h3
check "user is served" 15 served pingpong pu 5
for pause in 1 3 6; do
    for lost in 0 1 0 1; do
        hostlink h2 -n $lost cut
        sleep $pause
        hostlink h2 -n $lost heal
    done
    sleep 3
    out=$(lines reg 'Removed PingPongPool')
    [ "$out" = 0 ] && cell "element stays, each path lost for $pause s in turn" ok ||
        cell "element stays, each path lost for $pause s in turn" "WRONG: removed $out times"
    BEFORE[pu]=$(progress pingpong pu)
    check "session goes on" 15 served pingpong pu 20
done
stop pu pe reg
