#!/bin/bash
# Two registrars of theirs and two of ours are killed one after the other, and the others take their
# elements over: ours by ours, ours by theirs, theirs by ours.
# lab: --hosts 9
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
theirs t1 h1 0x00000b01
ready t1
ours o2 h2 0x00000b02
ready o2
theirs t3 h3 0x00000b03
ready t3
ours o4 h4 0x00000b04
ready o4
until_ 5 peers o4 3
# These two know one registrar only and have to be found; the third one looks for another itself.
element e1 h5 -echo -identifier=0x00000501 -rereginterval=60000 $(only t1)
element e2 h6 -daytime -identifier=0x00000601 -rereginterval=60000 $(only o2)
element e3 h7 -pingpong -identifier=0x00000701 -rereginterval=60000
check "elements have the homes they chose" 10 holds o4 EchoPool 0x00000501 0x00000b01
check "elements have the homes they chose" 10 holds o4 DaytimePool 0x00000601 0x00000b02
check "elements have the homes they chose" 10 holds o4 PingPongPool 0x00000701
crash o2
check "ours taken over by ours" 5 holds o4 DaytimePool 0x00000601 0x00000b04
check "one registrar less" 5 peers o4 2
crash o4
# Nobody may ask theirs meanwhile: hsdump counts as a peer, and the takeover would wait for it.
sleep 14
ours o5 h2 0x00000b05
ready o5
check "ours taken over by theirs" 15 holds o5 DaytimePool 0x00000601 '0x00000b0[13]'
check "ours joins theirs" 5 holds o5 EchoPool 0x00000501 0x00000b01
crash t1
check "theirs taken over by ours" 5 holds o5 EchoPool 0x00000501 0x00000b05
check "theirs knows the new home" 15 equal o5 t3
sleep 11
crash t3
check "the last of theirs taken over by ours" 5 peers o5 0
for what in 'EchoPool 0x00000501' 'DaytimePool 0x00000601' 'PingPongPool 0x00000701'; do
    # shellcheck disable=SC2086
    check "all elements end with ours" 5 holds o5 $what 0x00000b05
done
# They answer their new home's keep-alives.
sleep 3
for what in 'EchoPool 0x00000501' 'DaytimePool 0x00000601' 'PingPongPool 0x00000701'; do
    # shellcheck disable=SC2086
    check "all elements stay with ours" 1 holds o5 $what 0x00000b05
done
stop e1 e2 e3 o5
