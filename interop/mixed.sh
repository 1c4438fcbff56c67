#!/bin/bash
# Two registrars of theirs (t) and two of ours (o), started in the order given: all join, updates
# go both ways, and in the end all hold the same.
# lab: --hosts 9
# cases: ttoo ooto otot toot
. "$(dirname "$0")/common.inc"
order=${1:?order}
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
regs=() our=() their=()
for ((n = 1; n <= ${#order}; n++)); do
    case ${order:n-1:1} in
        t) theirs "t$n" "h$n" "0x00000b0$n"; regs+=("t$n"); their+=("t$n") ;;
        o) ours "o$n" "h$n" "0x00000b0$n"; regs+=("o$n"); our+=("o$n") ;;
    esac
    ready "${regs[-1]}" || cell "start of ${regs[-1]}" WRONG
    # What the others have to learn when they join.
    [ $n != 1 ] || element first h5 -echo -identifier=0x00000501 -rereginterval=5000
done
check "all join" 10 peers "${our[0]}" 3
check "all join" 10 peers "${our[-1]}" 3
element at-ours h6 -daytime -identifier=0x00000601 $(only "${our[0]}")
element at-theirs h7 -discard -identifier=0x00000701 $(only "${their[0]}")
check "update from ours to theirs" 10 holds "${their[-1]}" DaytimePool 0x00000601 "0x00000b0${our[0]#o}"
check "update from theirs to ours" 10 holds "${our[-1]}" DiscardPool 0x00000701 "0x00000b0${their[0]#t}"
check "what was before the joining" 2 holds "${our[-1]}" EchoPool 0x00000501
check "all hold the same" 10 equal "${regs[@]}"
stop at-theirs
check "removal from theirs to ours" 3 gone "${our[-1]}" DiscardPool 0x00000701
stop at-ours
check "removal from ours to theirs" 3 gone "${their[-1]}" DaytimePool 0x00000601
stop first "${regs[@]}"
